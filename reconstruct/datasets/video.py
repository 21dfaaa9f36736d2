"""Format ``video``: frames of a clip.

The sharpest frame of each interval of time is taken, and none of intervals that are blurred
throughout, or in which nothing moved.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydantic import Field

from reconstruct.atomic import atomic_path, remove
from reconstruct.config import NotIdentity
from reconstruct.datasets import Dataset
from reconstruct.datasets.cameras import CamerasConfig
from reconstruct.datasets.scratch import claim
from reconstruct.errors import DataError, UsageError
from reconstruct.files import read_json
from reconstruct.fingerprints import file_hash, fingerprint, is_fingerprint
from reconstruct.images import shrink
from reconstruct.types import ImageArray

logger = logging.getLogger(__name__)

VERSION = 1
"""To be increased when the same clip should give other frames."""
QUALITY = 95
SHARPNESS_EDGE, CHANGE_EDGE = 960, 80
"""Longer edge in pixels of the pictures by which frames are judged: blur shows at full size, noise
does not count when frames are compared."""
NEIGHBORS = 15
"""Stretches whose median says how sharp frames are about now."""


class VideoConfig(CamerasConfig):
    """A clip."""

    format: Literal["video"]
    path: Annotated[str, NotIdentity] = Field(min_length=1)
    """The file, of any format that FFmpeg reads."""
    frames_per_second: float = Field(2.0, gt=0)
    """Largest number of frames taken per second: the sharpest of each interval of that length."""
    min_sharpness: float = Field(0.3, ge=0, lt=1)
    """Smallest sharpness (variance of the Laplacian) of a frame, as a share of the median of the
    frames around it."""
    min_change: float = Field(2.0, ge=0)
    """Smallest mean difference from the frame taken before, in grey levels of pictures shrunk to 80
    pixels: below it the camera stood still."""
    camera_sharing: Literal["image", "folder", "single", "exif"] = "single"
    """Which frames share a guessed camera: all, as one camera took them."""

    def load(self, scratch: Path) -> Dataset:
        """The frames, taken if they are not there. Raises UsageError for a missing file or package,
        DataError if the file holds no picture."""
        path = Path(self.path)
        if not path.is_file():
            raise UsageError(f"{path}: no such video (dataset.path)")
        root = scratch / "images"
        names, damaged = take_frames(path, root, self)
        skipped = {} if damaged is None else {path.name: damaged}
        return Dataset(root=root, names=tuple(names), skipped=skipped)


@dataclass(frozen=True, slots=True, eq=False)
class Candidate:
    """The sharpest frame of a stretch of time.

    name: its file. sharpness: variance of the Laplacian. small: picture to tell change by.
    """

    name: str
    sharpness: float
    small: NDArray[np.float32]


def take_frames(path: Path, root: Path, config: VideoConfig) -> tuple[list[str], str | None]:
    """Write the frames of a clip to a folder, unless they are there.

    Args:
        path: The clip.
        root: Folder for its frames.
        config: Which to take.

    Returns:
        Sorted names of the frames, and what is wrong with the clip where it ends too early.

    Raises:
        UsageError: The package for videos is not installed, or ``root`` is not this program's.
        DataError: The file holds no picture.
    """
    wanted = fingerprint(
        *("frames", VERSION, QUALITY, file_hash(path)),
        *(config.frames_per_second, config.min_sharpness, config.min_change),
    )
    record = root.with_name(f"{root.name}.json")
    known = _read_record(record)
    claim(root.parent, root.name, record.name, known=is_fingerprint(known.get("fingerprint")))
    if known.get("fingerprint") == wanted:
        names = list(known["names"])
        if all((root / name).is_file() for name in names):
            return names, known["damaged"]
    remove(record)
    with atomic_path(root) as temporary:
        temporary.mkdir()
        clip = _Clip(path)
        candidates = list(_sharpest(clip, temporary, path.stem, config.frames_per_second))
        if not candidates:
            reason = clip.damaged or "it has no video stream"
            raise DataError(f"{path}: no picture can be read of this video ({reason})")
        chosen, blurred, still = choose(candidates, config.min_sharpness, config.min_change)
        for name in {c.name for c in candidates} - set(chosen):
            remove(temporary / name)
    content = {"fingerprint": wanted, "names": chosen, "damaged": clip.damaged}
    with atomic_path(record) as temporary:
        temporary.write_text(json.dumps(content, indent=1), encoding="utf-8")
    logger.info(
        "%s: took %d frames; left out %d stretches that are blurred and %d in which nothing moved",
        path.name,
        len(chosen),
        blurred,
        still,
    )
    return chosen, clip.damaged


def choose(
    candidates: Sequence[Candidate], min_sharpness: float, min_change: float
) -> tuple[list[str], int, int]:
    """The candidates that are sharp and show something new.

    Args:
        candidates: In the order of time.
        min_sharpness: See `VideoConfig`.
        min_change: See `VideoConfig`.

    Returns:
        Names of those chosen; how many were left out as blurred, and how many as unchanged.
    """
    sharpness = np.array([candidate.sharpness for candidate in candidates])
    names: list[str] = []
    last: NDArray[np.float32] | None = None
    blurred = still = 0
    for i, candidate in enumerate(candidates):
        about = sharpness[max(0, i - NEIGHBORS) : i + NEIGHBORS + 1]
        if candidate.sharpness < min_sharpness * float(np.median(about)):
            blurred += 1
        elif last is not None and float(np.abs(candidate.small - last).mean()) < min_change:
            still += 1
        else:
            names.append(candidate.name)
            last = candidate.small
    return names, blurred, still


class _Clip:
    """The pictures of a file, decoded one by one. damaged: why they ended too early, or None."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.damaged: str | None = None

    def __iter__(self) -> Iterator[tuple[float, ImageArray]]:
        """Time in seconds and picture, turned as a player shows it."""
        try:
            import av
        except ImportError as error:
            raise UsageError(
                f"{self.path}: videos need an extra package: pip install 'reconstruct[video]', or "
                "extract frames yourself and give their folder"
            ) from error
        time = 0.0
        try:
            with av.open(str(self.path)) as container:
                if not container.streams.video:
                    return
                stream = container.streams.video[0]
                stream.thread_type = "AUTO"
                for frame in container.decode(stream):
                    time = time if frame.time is None else float(frame.time)
                    picture = frame.to_ndarray(format="rgb24")
                    quarter_turns = round(frame.rotation / 90) % 4
                    yield time, np.ascontiguousarray(np.rot90(picture, quarter_turns))
        except av.FFmpegError as error:
            self.damaged = (
                f"damaged after {time:.1f} s ({error.strerror}); what comes before counts"
            )


def _sharpest(
    clip: _Clip, folder: Path, stem: str, frames_per_second: float
) -> Iterator[Candidate]:
    """The sharpest frame of each stretch of time, written to ``folder``."""
    best: tuple[float, int, Any] | None = None
    current = None
    for number, (time, picture) in enumerate(clip):
        stretch = int(time * frames_per_second + 1e-6)
        if best is not None and stretch != current:
            yield _kept(folder, stem, *best)
            best = None
        current = stretch
        value = sharpness(picture)
        if best is None or value > best[0]:
            best = value, number, picture
    if best is not None:
        yield _kept(folder, stem, *best)


def _kept(folder: Path, stem: str, value: float, number: int, picture: ImageArray) -> Candidate:
    name = f"{stem}_{number:06d}.jpg"
    Image.fromarray(picture).save(folder / name, quality=QUALITY, subsampling=0)
    return Candidate(name, value, _grey(picture, CHANGE_EDGE))


def sharpness(picture: ImageArray) -> float:
    """How sharp a picture is: the variance of its Laplacian.

    (Pech-Pacheco et al., "Diatom autofocusing in brightfield microscopy", ICPR 2000.)
    """
    return float(cv2.Laplacian(_grey(picture, SHARPNESS_EDGE), cv2.CV_32F).var())


def _grey(picture: ImageArray, edge: int) -> NDArray[np.float32]:
    grey = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY)
    return np.asarray(shrink(np.asarray(grey, np.uint8), edge), np.float32)


def _read_record(path: Path) -> dict[str, Any]:
    try:
        found = read_json(path)
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
