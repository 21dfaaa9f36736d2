"""Which methods are compared, as a command line says it.

sift                                  an extractor, or a model of extractor kornia
disk+lightglue                        an extractor and a matcher
upright=name=sift,upright=true        label=key=value,...: settings of extract.local
strict=match.ratio=0.8,refine=null    ... or of any section of the pipeline file
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, get_args

from reconstruct import features
from reconstruct.config import apply_overrides, parse_override
from reconstruct.errors import UnknownNameError, UsageError
from reconstruct.features.kornia import Model
from reconstruct.matching import MATCHERS
from reconstruct.matching.config import DEFAULT
from reconstruct.pipeline.config import PipelineConfig

LABEL = re.compile(r"\w[\w .+-]*")
SHARED = ("max_edge", "max_keypoints")
"""What another extractor takes over from the pipeline file's: all see the photos at one size."""
MODELS: tuple[str, ...] = get_args(Model)


@dataclass(frozen=True, slots=True, kw_only=True)
class MethodSpec:
    """A method: label, and dotted key -> value, which replace those of the pipeline file."""

    label: str
    settings: Mapping[str, Any]


def parse_methods(texts: Iterable[str]) -> list[MethodSpec]:
    """The methods that a command line names.

    Args:
        texts: Each ``NAME[+MATCHER],...`` or ``LABEL=KEY=VALUE,...``. A key that does not start
            with a section of a pipeline file is one of ``extract.local``; values are YAML.

    Raises:
        UsageError: No method is named, or a label is none or given twice.
        UnknownNameError: There is no such extractor or matcher.
        ConfigError: A setting is not of the form key=value.
    """
    found: list[MethodSpec] = []
    for text in texts:
        if "=" in text:
            found.append(_labelled(text))
        else:
            found += [_named(name.strip()) for name in text.split(",") if name.strip()]
    if not found:
        raise UsageError("no method to compare; name some, e.g. --methods sift,d2net")
    labels = [method.label for method in found]
    for label in labels:
        if labels.count(label) > 1:
            raise UsageError(f"method {label!r} is named twice; give each a label of its own")
    return found


def _named(name: str) -> MethodSpec:
    """A method by the name of its extractor, and of its matcher after a plus sign."""
    extractor, _, matcher = name.partition("+")
    settings: dict[str, Any] = {}
    if extractor in features.EXTRACTORS:
        settings["extract.local.name"] = extractor
    elif extractor in MODELS:
        settings |= {"extract.local.name": "kornia", "extract.local.model": extractor}
    else:
        raise UnknownNameError("extractor", extractor, [*features.EXTRACTORS, *MODELS])
    if matcher:
        if matcher not in MATCHERS:
            raise UnknownNameError("matcher", matcher, MATCHERS)
        settings["match.method"] = matcher
    return MethodSpec(label=name, settings=settings)


def _labelled(text: str) -> MethodSpec:
    label, _, rest = text.partition("=")
    if "=" not in rest or not LABEL.fullmatch(label):
        raise UsageError(
            f"method {text!r}: expected NAME, NAME+MATCHER or LABEL=KEY=VALUE,..., "
            "e.g. upright=name=sift,upright=true"
        )
    overrides = (parse_override(part) for part in split_commas(rest))
    return MethodSpec(label=label, settings={full_key(key): value for key, value in overrides})


def full_key(key: str) -> str:
    """A key as the pipeline file has it: one that starts with none of its sections is one of
    ``extract.local``."""
    sections = [s for s in PipelineConfig.model_fields if s not in ("name", "output")]
    return key if key.split(".")[0] in sections else f"extract.local.{key}"


def split_commas(text: str) -> list[str]:
    """Parts between commas, but for commas inside brackets or quotes."""
    parts, depth, quote = [""], 0, ""
    for sign in text:
        if quote:
            quote = "" if sign == quote else quote
        elif sign in "\"'":
            quote = sign
        depth += (sign in "[{") - (sign in "]}") if not quote else 0
        if sign == "," and not depth and not quote:
            parts.append("")
        else:
            parts[-1] += sign
    return parts


def overrides_for(method: MethodSpec, data: Mapping[str, Any]) -> dict[str, Any]:
    """Dotted key -> value with which the pipeline file becomes that of the method.

    Where the method names another extractor, or another of kornia's models, only `SHARED` stays of
    the file's section ``extract.local``; where it names another matcher, nothing of ``match``.

    Args:
        method: The method.
        data: What the pipeline file holds.
    """
    local = dict((data.get("extract") or {}).get("local") or {})
    name = str(method.settings.get("extract.local.name", local.get("name")))
    model = method.settings.get("extract.local.model", local.get("model"))
    if (name, model) != (local.get("name"), local.get("model")):
        known = features.config_class(name).model_fields
        local = {key: local[key] for key in SHARED if key in local and key in known}
    changed = apply_overrides({"extract": {"local": local}}, _below(method, "extract.local"))
    result: dict[str, Any] = {"extract.local": changed["extract"]["local"]}
    matcher = method.settings.get("match.method")
    if matcher is not None and matcher != (data.get("match") or {}).get("method", DEFAULT):
        result["match"] = {}
    own = {key: v for key, v in method.settings.items() if not key.startswith("extract.local.")}
    return result | own


def _below(method: MethodSpec, section: str) -> dict[str, Any]:
    return {key: v for key, v in method.settings.items() if key.startswith(f"{section}.")}


def spec(label: str, settings: Mapping[str, Any]) -> MethodSpec:
    """A method from Python: its settings by dotted key, as `parse_methods` takes them.

    Raises UsageError if the label cannot be the name of a folder.
    """
    if not LABEL.fullmatch(label):
        raise UsageError(f"method {label!r}: a label is letters, digits, spaces and . + - _")
    return MethodSpec(label=label, settings={full_key(k): v for k, v in settings.items()})
