"""Every setting of a pipeline file, with its type, default and sentence, read off the models."""

from __future__ import annotations

import types
import typing
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Annotated, Any

import yaml
from pydantic import TypeAdapter
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from reconstruct.config import Section
from reconstruct.errors import UsageError, suggestion
from reconstruct.pipeline.config import BY_SECTION, PipelineConfig

KINDS: Mapping[str, type[Section]] = {"": PipelineConfig, **BY_SECTION}
"""The section that tells a kind of pipeline file -> its model; "" is structure from motion."""

_WORDS = {str: "text", int: "integer", float: "number", bool: "true or false"}
_BOUNDS = {"ge": ">=", "gt": ">", "le": "<=", "lt": "<"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """A key of a pipeline file.

    kind: the section that tells the kind of file it stands in ("" for structure from motion).
    key: its dotted path; ``[]`` stands for each entry of a list. choice: what the sections around
    it must be, e.g. ``extract.local.name: sift``. default: as YAML, None where it is required.
    """

    kind: str
    key: str
    choice: str
    type: str
    default: str | None
    sentence: str

    def as_dict(self) -> dict[str, Any]:
        """JSON types only."""
        return asdict(self)


def all_settings() -> list[Setting]:
    """All settings of all kinds of pipeline files, in the order in which their sections stand."""
    return [
        setting for kind, model in KINDS.items() for setting in _walk(model, kind=kind, prefix="")
    ]


def find_settings(key: str) -> list[Setting]:
    """The setting ``key`` and those below it. Raises UsageError if there is none."""
    settings = all_settings()
    found = [s for s in settings if f"{_plain(s.key)}.".startswith(f"{_plain(key)}.")]
    if not found:
        raise UsageError(f"no setting {key!r}{_nearest(key, settings)}")
    return found


def json_schema() -> dict[str, Any]:
    """JSON schema (draft 2020-12) of pipeline files: editors then complete and check them."""
    models = {kind: model for kind, model in KINDS.items() if kind}
    union: Any = typing.Union[tuple(KINDS.values())]  # noqa: UP007 - not known to a type checker
    schema = TypeAdapter(union).json_schema(by_alias=True)
    definitions = schema["$defs"]
    rule: dict[str, Any] = {"$ref": f"#/$defs/{PipelineConfig.__name__}"}
    for kind, model in models.items():
        reference = {"$ref": f"#/$defs/{model.__name__}"}
        rule = {"if": {"required": [kind]}, "then": reference, "else": rule}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "A pipeline file of reconstruct",
        **rule,
        "$defs": definitions,
    }


def fields(model: type[Section]) -> dict[str, FieldInfo]:
    """The fields of a section by their keys in a file."""
    return {field.alias or name: field for name, field in model.model_fields.items()}


def sentence(field: FieldInfo, owner: type[Section]) -> str:
    """The docstring beside a field; one that opens a section, or picks one, has the section's."""
    members = sections(field.annotation)
    text = field.description or (members[0] if len(members) == 1 else owner).__doc__ or ""
    if not field.description and len(members) > 1:
        picked = [tag(member) for member in members]
        text = f"Told apart by `{picked[0][0]}`." if picked[0] else text
    return " ".join(text.split()).replace("``", "`")


def default(field: FieldInfo) -> Any:
    """What a field is where a file does not say; PydanticUndefined if it must."""
    value = field.get_default(call_default_factory=True)
    if isinstance(value, tuple) and any(isinstance(part, Section) for part in value):
        return [_written(part) for part in value]
    return value.model_dump(mode="json", by_alias=True) if isinstance(value, Section) else value


def _written(section: Section) -> dict[str, Any]:
    """A section as short as a file may say it: what tells it apart, and what is no default."""
    picked = tag(type(section))
    differs = section.model_dump(mode="json", by_alias=True, exclude_defaults=True)
    return {**(dict([picked]) if picked else {}), **differs}


def sections(annotation: Any) -> list[type[Section]]:
    """The sections that a type is made of: one, the members of a union, or those of a list."""
    if isinstance(annotation, type) and issubclass(annotation, Section):
        return [annotation]
    return [found for part in typing.get_args(annotation) for found in sections(part)]


def tag(model: type[Section]) -> tuple[str, str] | None:
    """The key and value that pick a section among the members of a union, e.g. (name, sift)."""
    for key in ("name", "method", "format"):
        field = model.model_fields.get(key)
        values = typing.get_args(field.annotation) if field is not None else ()
        if len(values) == 1 and isinstance(values[0], str):
            return key, values[0]
    return None


def _walk(model: type[Section], *, kind: str, prefix: str, choice: str = "") -> Iterator[Setting]:
    for name, field in fields(model).items():
        key = f"{prefix}{name}"
        members = sections(field.annotation)
        yield Setting(
            kind=kind,
            key=key,
            choice=choice,
            type=_type(field.annotation, field.metadata),
            default=_default_text(field),
            sentence=sentence(field, model),
        )
        below = f"{key}[]." if _is_list(field.annotation) else f"{key}."
        for member in members:
            picked = tag(member) if len(members) > 1 else None
            own = f"{below}{picked[0]}: {picked[1]}" if picked else ""
            both = ", ".join(part for part in (choice, own) if part)
            yield from _walk(member, kind=kind, prefix=below, choice=both)


def _default_text(field: FieldInfo) -> str | None:
    value = default(field)
    if value is PydanticUndefined:
        return None
    return inline(value)


def inline(value: Any) -> str:
    """A value as YAML in one line."""
    text = yaml.safe_dump(_as_yaml(value), default_flow_style=True, width=10**6, sort_keys=False)
    return text.removesuffix("\n...\n").strip()


def _as_yaml(value: Any) -> Any:
    if isinstance(value, tuple | list):
        return [_as_yaml(item) for item in value]
    if isinstance(value, dict):
        return {key: _as_yaml(item) for key, item in value.items()}
    return value


def _type(annotation: Any, metadata: typing.Sequence[Any] = ()) -> str:
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    bounds = " ".join(
        f"{sign} {getattr(item, name):g}"
        for item in metadata
        for name, sign in _BOUNDS.items()
        if getattr(item, name, None) is not None
    )
    if origin is Annotated:
        return _type(arguments[0], [*arguments[1:], *metadata])
    if origin is typing.Literal:
        return " | ".join(str(value) for value in arguments)
    if origin in (typing.Union, types.UnionType):
        given = [a for a in arguments if a is not type(None)]
        members = [_type(a, metadata if len(given) == 1 else ()) for a in given]
        null = ["null"] if len(given) < len(arguments) else []
        return " or ".join([*dict.fromkeys(members), *null])
    if origin in (tuple, list):
        inner = [a for a in arguments if a is not Ellipsis]
        return f"list of {_type(inner[0])}"
    if origin is dict:
        return "section of any keys"
    if sections(annotation):
        return "section"
    return f"{_WORDS.get(annotation, 'path')} {bounds}".strip()


def _is_list(annotation: Any) -> bool:
    return typing.get_origin(annotation) in (tuple, list)


def _plain(key: str) -> str:
    return key.replace("[]", "")


def _nearest(key: str, settings: list[Setting]) -> str:
    """The keys beside the one that was meant: those of the deepest section that exists."""
    parts = key.split(".")
    keys = [_plain(s.key) for s in settings]
    while parts and not any(k.startswith(".".join(parts[:-1])) for k in keys):
        parts.pop()
    depth = max(len(parts), 1)
    parent = parts[: depth - 1]
    beside = {k for k in keys if k.split(".")[: depth - 1] == parent and k.count(".") == depth - 1}
    return suggestion(".".join(parts[:depth]), beside)
