"""Typed configuration: YAML becomes frozen models, and every error names where the mistake is.

The settings of a stage are a `Section` beside the stage; `pipeline/config.py` joins them. Here is
what they share: the base class, reading, overrides (``a.b.c=value``, through the same validator),
and the wording of errors.
"""

from __future__ import annotations

import reprlib
import types
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError, field_validator
from pydantic.fields import FieldInfo

from reconstruct.errors import ConfigError, suggestion
from reconstruct.files import read_text
from reconstruct.yaml_text import parse_yaml

SectionT = TypeVar("SectionT", bound="Section")

YAML_LIMIT_BYTES = 1 << 18
MAX_MISTAKES = 20
"""Lines of an error about one file."""

_INT32_LIMIT = 2**31

_short = reprlib.Repr()
_short.maxstring = _short.maxother = 80


def shown(value: Any) -> str:
    """``value`` in an error message: its `repr`, cut where it is long or deep."""
    return _short.repr(value)


class NotIdentity:
    """Marks a field that is left out of fingerprints: ``workers: Annotated[int, NotIdentity]``.

    Such a field changes how fast a result is made, but not the result; or it is a path whose
    content the stage fingerprints instead.
    """


def tuple_from_list(value: Any) -> Any:
    """A list, which is all that YAML has, as a tuple; for fields in a union, where older pydantic
    takes no `Field(strict=False)`."""
    return tuple(value) if isinstance(value, list) else value


class Section(BaseModel):
    """A frozen part of the configuration. Unknown keys are errors, and values are not converted.

    Whole numbers fit into 32 bits, as COLMAP, torch and OpenCV take them; numbers are finite where
    a field does not say otherwise.
    """

    model_config = ConfigDict(
        protected_namespaces=(),  # older pydantic minds fields whose names begin with "model_"
        extra="forbid",
        frozen=True,
        strict=True,
        allow_inf_nan=False,
        use_attribute_docstrings=True,
    )

    @field_validator("*")
    @classmethod
    def _fits(cls, value: Any) -> Any:
        if isinstance(value, int) and not -_INT32_LIMIT <= value < _INT32_LIMIT:
            raise ValueError(f"expected a whole number below 2**31, got {shown(value)}")
        if isinstance(value, str) and "\0" in value:
            raise ValueError(f"expected text without zero bytes, got {shown(value)}")
        return value

    def identity(self) -> dict[str, Any]:
        """The settings that decide the result, as JSON types: the input of fingerprints."""
        result: dict[str, Any] = {}
        for name, field in type(self).model_fields.items():
            if NotIdentity not in field.metadata:
                result[name] = _plain(getattr(self, name))
        return result


def _plain(value: Any) -> Any:
    if isinstance(value, Section):  # also in a list, as the sources of a mix are
        return value.identity()
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, tuple | list):
        return [_plain(item) for item in value]
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    return value


def read_yaml(path: Path) -> dict[str, Any]:
    """The mapping in a YAML file. Raises ConfigError naming the file and the line."""
    try:
        text = read_text(path, YAML_LIMIT_BYTES)
    except OSError as error:
        raise ConfigError(f"{path}: cannot read the pipeline file ({error.strerror})") from error
    except UnicodeDecodeError as error:
        raise ConfigError(
            f"{path}: the pipeline file is not UTF-8 text ({error.reason})"
        ) from error
    try:
        data = parse_yaml(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: not valid YAML: {error}") from error
    if not isinstance(data, dict):
        raise ConfigError(
            f"{path}: expected sections (`dataset:`, `extract:` ...), got {shown(data)}"
        )
    return data


def parse_override(text: str) -> tuple[str, Any]:
    """``"a.b.c=value"`` as ("a.b.c", value), with the value read as YAML. Raises ConfigError."""
    key, sign, value = text.partition("=")
    if not sign or not key.strip():
        raise ConfigError(f"--set {shown(text)}: expected key=value, e.g. match.ratio=0.9")
    try:
        return key.strip(), parse_yaml(value)
    except yaml.YAMLError as error:
        raise ConfigError(f"--set {shown(text)}: the value is not valid YAML: {error}") from error


def apply_overrides(data: Mapping[str, Any], overrides: Mapping[str, Any]) -> dict[str, Any]:
    """A copy of nested ``data`` in which each dotted key of ``overrides`` is replaced.

    Sections that are missing on the way are created; the validator judges the result.

    Args:
        data: Nested mappings, as read from YAML.
        overrides: Dotted key (``a.b.c``) -> value.

    Raises:
        ConfigError: A key leads through something that is not a section.
    """
    result = dict(data)
    for dotted, value in overrides.items():
        *parents, last = dotted.split(".")
        node = result
        for depth, key in enumerate(parents):
            child = node.get(key)
            if child is not None and not isinstance(child, Mapping):
                place = ".".join(parents[: depth + 1])
                raise ConfigError(f"{dotted}: {place} is {shown(child)}, not a section")
            node[key] = dict(child or {})
            node = node[key]
        node[last] = value
    return result


def validate(model: type[SectionT], data: Mapping[str, Any], source: str) -> SectionT:
    """``data`` as an instance of ``model``.

    Args:
        model: The class of the section.
        data: Nested mappings, as read from YAML.
        source: Where the data comes from, for messages: usually the file's path.

    Raises:
        ConfigError: With one line per mistake, which names ``source``, the path inside it, what was
            expected and what came; for an unknown key also the nearest valid one.
    """
    try:
        return model.model_validate(data)
    except ValidationError as error:
        mistakes = _telling([dict(e) for e in error.errors()])
        lines = [_describe(model, item) for item in mistakes[:MAX_MISTAKES]]
        if len(mistakes) > MAX_MISTAKES:
            lines.append(f"and {len(mistakes) - MAX_MISTAKES} more mistakes")
        raise ConfigError("\n".join(f"{source}: {line}" for line in lines)) from error


def _telling(items: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The errors worth showing: without those of union members that cannot take a value of this
    kind at all, if another member can."""
    taken: set[tuple[str | int, ...]] = set()
    for item in items:
        depth = len(item["loc"]) - item["type"].endswith("_type")
        taken |= {item["loc"][:end] for end in range(1, depth)}
    return [
        item
        for item in items
        if not (
            item["type"].endswith("_type")
            and _is_type_name(str(item["loc"][-1]))
            and item["loc"][:-1] in taken
        )
    ]


def _describe(model: type[Section], item: dict[str, Any]) -> str:
    loc: Sequence[str | int] = item["loc"]
    owner, path = _locate(model, loc[:-1] if item["type"] == "extra_forbidden" else loc)
    if item["type"] == "extra_forbidden":
        key = str(loc[-1])
        keys = _by_alias(owner) if owner else ()
        return f"{_place([*path, key])}: unknown key{suggestion(key[:80], keys)}"
    where = _place(path) or "(whole file)"
    if item["type"] == "missing":
        return f"{where}: required, but absent"
    if item["type"].startswith("union_tag"):
        field = item["ctx"]["discriminator"].strip("'")
        valid = [str(tag) for choice in _choices(model, loc) for tag in _tags(choice, field)]
        if "tag" not in item["ctx"]:
            return f"{where}.{field}: required, but absent; valid: {', '.join(sorted(valid))}"
        tag = item["ctx"]["tag"]
        return f"{where}.{field}: unknown name {shown(tag)}{suggestion(tag[:80], valid)}"
    if item["type"] in ("model_type", "model_attributes_type", "dict_type"):
        return f"{where}: expected a section of `key: value` lines, got {shown(item['input'])}"
    message = item["msg"].removeprefix("Value error, ").removeprefix("Input should be ")
    if item["type"] in ("value_error", "assertion_error"):
        return f"{where}: {message}"
    return f"{where}: expected {message}, got {shown(item['input'])}"


def _place(path: Sequence[str]) -> str:
    return ".".join(key if len(key) <= 80 else f"{key[:80]}..." for key in path)


def _locate(
    model: type[Section], loc: Sequence[str | int]
) -> tuple[type[Section] | None, list[str]]:
    """The section that a pydantic location leads to, and the location as written in the file.

    pydantic puts the chosen member of a union into the location (its tag, or the name of the
    type); the file has no such level.
    """
    owner: type[Section] | None = model
    path: list[str] = []
    choices: list[type[Section]] = []
    for key in loc:
        chosen = next((c for c in choices if _is_choice(c, str(key))), None)
        if chosen is not None:
            owner, choices = chosen, []
        elif owner is not None and key in _by_alias(owner):
            path.append(str(key))
            choices = _sections_in(_by_alias(owner)[str(key)].annotation)
            owner = choices[0] if len(choices) == 1 else None
        elif isinstance(key, int) or not _is_type_name(str(key)):
            path.append(str(key))
    return owner, path


def _choices(model: type[Section], loc: Sequence[str | int]) -> list[type[Section]]:
    """The members of the union that a pydantic location leads to."""
    while isinstance(loc[-1], int):  # an entry of a list: its members are those of the list
        loc = loc[:-1]
    owner, _ = _locate(model, loc[:-1])
    return _sections_in(_by_alias(owner)[str(loc[-1])].annotation) if owner else []


def _by_alias(section: type[Section]) -> dict[str, FieldInfo]:
    """Fields by their keys in a file, which differ from Python's where those are keywords."""
    return {field.alias or name: field for name, field in section.model_fields.items()}


def _is_choice(section: type[Section], key: str) -> bool:
    tags = [tag for field in ("name", "method", "format") for tag in _tags(section, field)]
    return section.__name__ == key or key in tags


def _tags(section: type[Section], field: str) -> tuple[Any, ...]:
    """The values that pick this member of a union, by the member's ``field``."""
    tag = section.model_fields.get(field)
    return typing.get_args(tag.annotation) if tag is not None else ()


def _is_type_name(key: str) -> bool:
    return "[" in key or key in ("str", "int", "float", "bool", "none", "path")


def _sections_in(annotation: Any) -> list[type[Section]]:
    if isinstance(annotation, type) and issubclass(annotation, Section):
        return [annotation]
    if typing.get_origin(annotation) in (typing.Union, types.UnionType, typing.Annotated, tuple):
        members = [_sections_in(argument) for argument in typing.get_args(annotation)]
        return [section for sections in members for section in sections]
    return []
