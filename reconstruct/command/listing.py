"""Settings as text for a terminal, and as pages of the documentation."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence
from itertools import groupby

from reconstruct.command.settings import Setting

KIND_NAMES = {
    "": "Structure from motion and localization",
    "methods": "Benchmarks of extractors (files with section `methods`)",
    "rows": "Localization in RGB-D maps (files with section `rows`)",
    "features": "Several extractors in one localization benchmark (files with section `features`)",
    "train": "Training D2-Net (files with section `train`)",
    "train_matcher": "Training a matcher (files with section `train_matcher`)",
}


def as_text(settings: Sequence[Setting], width: int = 100) -> str:
    """Key, type and default in a line each, the sentence below."""
    lines: list[str] = []
    for heading, group in _groups(settings):
        lines += [heading, ""]
        for setting in group:
            value = "required" if setting.default is None else f"default {setting.default}"
            lines.append(f"  {setting.key}: {setting.type}; {value}")
            lines += textwrap.wrap(
                setting.sentence, width, initial_indent=" " * 6, subsequent_indent=" " * 6
            )
        lines.append("")
    return "\n".join(lines)


def as_markdown(settings: Sequence[Setting]) -> str:
    """A table for each section."""
    lines: list[str] = []
    kind = None
    for _, group in _groups(settings):
        if group[0].kind != kind:
            kind = group[0].kind
            lines += [f"## {KIND_NAMES[kind]}", ""]
        if group[0].choice:
            lines += [f"### `{group[0].choice}`", ""]
        else:
            section = group[0].key.rpartition(".")[0]
            lines += [f"### `{section}`" if section else "### The file itself", ""]
        lines += ["| key | type | default | |", "|---|---|---|---|"]
        for setting in group:
            value = "required" if setting.default is None else f"`{setting.default}`"
            cells = (f"`{setting.key}`", setting.type, value, setting.sentence)
            lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
        lines.append("")
    return "\n".join(lines)


def _groups(settings: Sequence[Setting]) -> Iterator[tuple[str, list[Setting]]]:
    """Settings of one kind of file that belong together, and what to write above them."""

    def place(setting: Setting) -> tuple[str, str, str]:
        return setting.kind, setting.choice, setting.key.rpartition(".")[0]

    for (kind, choice, _), group in groupby(settings, place):
        yield f"{KIND_NAMES[kind]}{f', with {choice}' if choice else ''}", list(group)
