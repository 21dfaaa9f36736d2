"""The settings of a run for people: what differs from the defaults first, then all."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Literal, get_args, get_origin

import yaml
from pydantic import BaseModel
from pydantic_core import to_jsonable_python

from reconstruct.report.content import Settings


def report_settings(config: BaseModel | Mapping[str, Any]) -> Settings:
    """The settings that the report shows, and which of them differ from the defaults.

    A configuration that comes as a plain mapping has no defaults to compare with.
    """
    if isinstance(config, BaseModel):
        content: Mapping[str, Any] = config.model_dump(mode="json", by_alias=True)
        # First what has a default that can be compared; `sorted` keeps the order otherwise.
        changed = tuple(sorted(_changed(config, ""), key=lambda row: not row[2]))
    else:
        content, changed = config, ()
    text = yaml.safe_dump(dict(content), sort_keys=False, allow_unicode=True)
    return Settings(changed=changed, all=text)


def _changed(section: BaseModel, prefix: str) -> Iterator[tuple[str, str, str]]:
    """Dotted key, value and default of every field that is not at its default."""
    for name, field in type(section).model_fields.items():
        value = getattr(section, name)
        key = f"{prefix}{field.alias or name}"
        default = field.get_default(call_default_factory=True) if not field.is_required() else None
        if value == default and not field.is_required() and isinstance(value, BaseModel):
            continue
        if isinstance(value, BaseModel):
            yield from _changed(value, f"{key}.")
        elif isinstance(value, list | tuple) and any(isinstance(v, BaseModel) for v in value):
            for number, item in enumerate(value, 1):  # of each, what was set
                told = item.model_dump(mode="json", by_alias=True, exclude_unset=True)
                yield f"{key} {number}", _text(told), ""
        elif field.is_required() or _names_a_kind(field.annotation):
            yield key, _text(value), ""
        elif value != default:
            yield key, _text(value), _text(default)


def _names_a_kind(annotation: Any) -> bool:
    """Whether a field says which kind of section this is: it has one value only."""
    return get_origin(annotation) is Literal and len(get_args(annotation)) == 1


def _text(value: Any) -> str:
    plain = to_jsonable_python(value, by_alias=True)  # sections, paths
    dumped = yaml.safe_dump(plain, default_flow_style=True, allow_unicode=True, width=10_000)
    return dumped.removesuffix("\n...\n").strip()
