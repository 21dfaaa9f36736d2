"""Photos of webcams with a fixed view, by day and by night (as in AMOS: Jacobs et al., CVPR 2007).

    ROOT/CAMERA/day-NAME.jpg   ROOT/CAMERA/night-NAME.jpg   (or .png)

What a pixel shows is the same in all photos of a camera, so the true map between any two of them
is the identity. Cameras drift a little with wind and warmth: photos taken while one had moved by
more than a pixel are better left out (``leave_out``).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations, product
from pathlib import Path
from typing import Final, Literal, TypeVar

import numpy as np
from pydantic import Field

from reconstruct.config import Section
from reconstruct.datasets import Dataset
from reconstruct.errors import DataError, UsageError, suggestion
from reconstruct.images import image_size
from reconstruct.types import ImagePair

EXTENSIONS: Final = frozenset({".jpg", ".jpeg", ".png"})
LIGHTS: Final = ("day", "night")
KINDS: Final = ("day-day", "day-night", "night-night")

T = TypeVar("T")


class DayNightConfig(Section):
    """Section ``dataset`` with ``format: daynight``."""

    format: Literal["daynight"]
    images: str
    """The folder of the cameras' folders."""
    cameras: tuple[str, ...] | None = Field(None, min_length=1, strict=False)
    """Folders to use; null: all."""
    leave_out: tuple[str, ...] = Field((), strict=False)
    """Photos not to use, as CAMERA/NAME: those of a time when the camera had moved."""
    photos: int = Field(6, ge=1)
    """Photos drawn of each camera by day, and as many by night."""
    pairs: int = Field(8, ge=1)
    """Pairs drawn of these photos for each camera and kind of pair."""
    seed: int = 0
    """Seed of both draws."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class DayNight:
    """Images and pairs. pairs: kind (`KINDS`) -> pairs of image names, sorted, day before night."""

    dataset: Dataset
    pairs: dict[str, tuple[ImagePair, ...]]
    cameras: tuple[str, ...]


def load_daynight(config: DayNightConfig) -> DayNight:
    """The photos and pairs that ``config`` draws; a camera without photos is skipped and named.

    Raises UsageError for a missing folder, camera or photo, DataError for photos of one camera
    that differ in size, or if there is no pair.
    """
    root = Path(config.images)
    if not root.is_dir():
        raise UsageError(f"{root}: no such folder; give that of the cameras with --images")
    cameras = _cameras(root, config)
    _check_left_out(root, config)
    skipped: dict[str, str] = {}
    names: list[str] = []
    pairs: dict[str, list[ImagePair]] = {kind: [] for kind in KINDS}
    for number, camera in enumerate(cameras):
        found = {light: _photos(root, camera, light, config.leave_out) for light in LIGHTS}
        if not any(found.values()):
            skipped[camera] = "no photo named day-* or night-*"
            continue
        rng = np.random.default_rng((config.seed, number))
        day, night = (_draw(found[light], config.photos, rng) for light in LIGHTS)
        _check_sizes(root, [*day, *night])
        names += [*day, *night]
        possible = (combinations(day, 2), product(day, night), combinations(night, 2))
        for kind, candidates in zip(KINDS, possible, strict=True):
            pairs[kind] += _draw(list(candidates), config.pairs, rng)
    if not any(pairs.values()):
        raise DataError(
            f"{root}: no pair (CAMERA/day-NAME.jpg and CAMERA/night-NAME.jpg, two or more a camera)"
        )
    return DayNight(
        dataset=Dataset(root=root, names=tuple(sorted(names)), skipped=skipped),
        pairs={kind: tuple(sorted(chosen)) for kind, chosen in pairs.items()},
        cameras=tuple(camera for camera in cameras if camera not in skipped),
    )


def _cameras(root: Path, config: DayNightConfig) -> list[str]:
    present = sorted(path.name for path in root.iterdir() if path.is_dir())
    for name in config.cameras or ():
        if name not in present:
            raise UsageError(f"dataset.cameras: no {name!r} in {root}{suggestion(name, present)}")
    return sorted(config.cameras or present)


def _check_left_out(root: Path, config: DayNightConfig) -> None:
    for name in config.leave_out:
        if not (root / name).is_file():
            raise UsageError(f"dataset.leave_out: no photo {name!r} in {root}")


def _photos(root: Path, camera: str, light: str, leave_out: Sequence[str]) -> list[str]:
    """CAMERA/NAME of all photos of a light, sorted."""
    files = sorted((root / camera).glob(f"{light}-*"))
    names = [f"{camera}/{file.name}" for file in files if file.suffix.lower() in EXTENSIONS]
    return [name for name in names if name not in leave_out]


def _draw(items: Sequence[T], count: int, rng: np.random.Generator) -> list[T]:
    """``count`` of the items at random, or all if there are no more; in their order."""
    chosen = rng.choice(len(items), min(count, len(items)), replace=False)
    return [items[i] for i in sorted(chosen)]


def _check_sizes(root: Path, names: Sequence[str]) -> None:
    sizes = {name: image_size(root / name) for name in names}
    first = sizes[names[0]]
    for name, size in sizes.items():
        if size != first:
            raise DataError(
                f"{root / name}: {size[0]} x {size[1]}, but {names[0]} has "
                f"{first[0]} x {first[1]}; photos of one camera must agree pixel by pixel: "
                "remove it, or list it in dataset.leave_out"
            )
