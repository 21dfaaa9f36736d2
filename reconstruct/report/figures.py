"""Figures for people: names without underscores, values with their units."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

SHOWN = 20
"""Longest list of names that a figure shows; log.txt and metrics.json have them all."""

UNITS = {"_px": "px", "_percent": "%", "_deg": "°", "_mb": "MB", "_seconds": "s"}
UNITS |= {"_s": "s", "_m": "m"}
"""Suffix of a figure's name -> its unit."""

LENGTHS = (
    *("position_mean", "position_median", "position_max"),
    *("position_rms", "position_rms_expected"),
)
"""Figures in the unit of the reference, which is the metre wherever that is known."""

WHOLES = {"verified_pairs": "of_pairs", "registered_images": "of_images", "localized": "queries"}
"""Figure -> the one that it is a part of: the two are told together, as "63 of 66"."""


def figure_texts(figures: Mapping[str, Any]) -> dict[str, tuple[str, str]]:
    """A stage's figures by their keys: label and value as `figure` writes them."""
    texts = {name: figure(name, value) for name, value in figures.items()}
    for part, whole in WHOLES.items():
        if part in texts and whole in texts:
            label, value = texts[part]
            texts[part] = label, f"{value} of {texts.pop(whole)[1]}"
    return texts


def figure(name: str, value: Any) -> tuple[str, str]:
    """A figure's name and value as texts: ("error_px", 0.3452) -> ("error", "0.345 px")."""
    if name in LENGTHS and isinstance(value, int | float):
        return words(name), length(value)
    for suffix, unit in UNITS.items():
        if name.endswith(suffix) and isinstance(value, int | float):
            label = words(name.removesuffix(suffix))
            told = f"{value:.3g}" if isinstance(value, float) else plain(value)
            return label, f"{told}{'' if unit == '°' else ' '}{unit}"
    return words(name), plain(value)


def words(name: str) -> str:
    """A figure's name as people write it: "auc_1deg" -> "AUC 1°"."""
    text = re.sub(r"(\d)deg\b", r"\1°", name.replace("_", " "))
    text = re.sub(r"^(position|rotation) (mean|median|max)$", r"\2 \1 error", text)
    return re.sub(r"\b(auc|gps|rms)\b", lambda found: found[0].upper(), text)


def plain(value: Any) -> str:
    """Any value as a text: thousands apart, four digits, long lists cut."""
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        if value.is_integer() and abs(value) < 1e15:
            return f"{int(value):,}"
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
    if isinstance(value, Mapping):
        return ", ".join(f"{key}: {plain(item)}" for key, item in value.items())
    if isinstance(value, list | tuple | set):
        names = [str(item) for item in value]
        more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
        return (", ".join(names[:SHOWN]) + more) or "none"
    return str(value)


def length(metres: float, digits: int = 3) -> str:
    """A length in a unit that is easy to read: 0.7 mm, 3.2 cm, 1.4 m."""
    if not math.isfinite(metres):
        return "-"
    for limit, factor, unit in ((0.0995, 1000, "mm"), (0.995, 100, "cm")):
        if abs(metres) < limit:
            return f"{metres * factor:.{digits}g} {unit}" if metres else "0 mm"
    return f"{metres:,.0f} m" if abs(metres) >= 1000 else f"{metres:.{digits}g} m"


def duration(seconds: float) -> str:
    """Seconds as people say them: < 0.1 s, 0.4 s, 12 s, 3 min 20 s, 2 h 5 min."""
    if seconds < 0.05:
        return "< 0.1 s"
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def count(number: int, word: str) -> str:
    """1 photo, 12 photos, 1,204 matches, 3 queries."""
    if number == 1:
        return f"1 {word}"
    if word.endswith("y"):
        return f"{number:,} {word[:-1]}ies"
    return f"{number:,} {word}{'es' if word.endswith('ch') else 's'}"
