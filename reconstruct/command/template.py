"""``reconstruct init``: a pipeline of the package as a file with every setting explained.

What the pipeline sets stands as it is; every other setting follows as a comment with its default:
``#key: value``, without a space, to be told from the explanations.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic_core import PydanticUndefined

from reconstruct.command.settings import default, fields, inline, sections, sentence
from reconstruct.config import Section, read_yaml
from reconstruct.pipeline.config import load_config
from reconstruct.shipped import find_pipeline

WIDTH = 100


def commented(name: Path | str) -> str:
    """The text of a pipeline file like pipeline ``name``, every setting explained."""
    path = find_pipeline(name)
    given = read_yaml(path)
    model = load_config(path)
    head = [
        f"# The settings of `{path.stem}` and, in lines that begin with # and no space, the",
        "# defaults of all others. Run it: reconstruct run THIS_FILE --images PHOTOS --output OUT",
        "",
    ]
    return "\n".join([*head, *_section(model, given, indent="")]) + "\n"


def _section(config: Section, given: Mapping[str, Any], indent: str) -> Iterator[str]:
    for key, field in fields(type(config)).items():
        name = next(n for n, f in type(config).model_fields.items() if f is field)
        value = getattr(config, name)
        yield from _comment(sentence(field, type(config)), indent)
        if key not in given:
            yield f"{indent}#{_line(key, default(field))}"
        elif isinstance(value, Section):
            yield f"{indent}{key}:"
            # With comments only it would be null: one without settings shows its defaults as such.
            yield from _section(value, given[key] or _defaults(value), indent + "  ")
        elif isinstance(given[key], list) and sections(field.annotation):
            yield f"{indent}{key}:"
            yield from (f"{indent}  - {inline(entry)}" for entry in given[key])
        else:
            yield f"{indent}{_line(key, given[key])}"
        if not indent:
            yield ""


def _defaults(config: Section) -> dict[str, Any]:
    return {key: default(field) for key, field in fields(type(config)).items()}


def _line(key: str, value: Any) -> str:
    """``key: value`` in one line of YAML."""
    plain = None if value is PydanticUndefined else value
    return f"{key}: {inline(plain)}"


def _comment(text: str, indent: str) -> list[str]:
    return textwrap.wrap(text, WIDTH, initial_indent=f"{indent}# ", subsequent_indent=f"{indent}# ")
