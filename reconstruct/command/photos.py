"""The part of ``reconstruct doctor`` that looks at a folder of photos before hours are spent."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import ExifTags

from reconstruct.command.doctor import Finding
from reconstruct.datasets.conversion import CONVERTED, is_foreign, reader_of, without_twins
from reconstruct.datasets.folder import list_images
from reconstruct.errors import ImageError
from reconstruct.images import image_size, opened_exif

MANY_PHOTOS = 500
"""Exhaustive pairs of more than these take hours on a CPU."""
FEW_PHOTOS = 3
SMALL_EDGE_PX = 640
FEATURE_BYTES = 6e6
"""Features of one photo as sfm stores them: some 3000 descriptors of 512 float32."""
SHOWN = 5


@dataclass(frozen=True, slots=True)
class Photo:
    """What the header of a photo tells. focal: whether EXIF holds a focal length."""

    name: str
    size: tuple[int, int]
    camera: str
    focal: bool
    orientation: int
    gps: bool


def examine_photos(root: Path) -> list[Finding]:
    """What a folder of photos promises. Raises UsageError or DataError if it holds none."""
    names, skipped = list_images(root, CONVERTED)
    photos, unreadable = [], dict(skipped)
    foreign = []
    for name in without_twins(names):
        try:
            if is_foreign(name):
                reader_of(root / name)
                foreign.append(name)
                continue
            photos.append(read_header(root, name))
        except ImageError as error:
            unreadable[name] = str(error).removeprefix(f"{root / name}: ")
    found = [Finding("ok", "photos", f"{len(photos)} in {root}")]
    found += [Finding("trouble", name, reason) for name, reason in list(unreadable.items())[:SHOWN]]
    if len(unreadable) > SHOWN:
        more = len(unreadable) - SHOWN
        found.append(Finding("trouble", "...", f"and {more} more that cannot be used"))
    if foreign:
        text = f"{_some(foreign)}: converted to JPEG when a run starts, and not looked at here"
        found.append(Finding("note", "formats", text))
    for check in (_number, _sizes, _cameras, _orientation, _gps):
        found += check(photos) if photos else ()
    found += _copies(root, photos)
    return found


def read_header(root: Path, name: str) -> Photo:
    """Size and EXIF of a photo, without its pixels. Raises ImageError."""
    size = image_size(root / name)
    try:
        with opened_exif(root / name) as exif:
            inner = exif.get_ifd(ExifTags.IFD.Exif)
            gps = bool(exif.get_ifd(ExifTags.IFD.GPSInfo))
    except ImageError:
        return Photo(name, size, "", False, 1, False)  # broken EXIF counts as none
    tags = ExifTags.Base
    maker, model = (str(exif.get(tag, "")).strip("\0 ") for tag in (tags.Make, tags.Model))
    focal = bool(inner.get(tags.FocalLengthIn35mmFilm) or inner.get(tags.FocalLength))
    orientation = exif.get(tags.Orientation, 1)
    return Photo(name, size, f"{maker} {model}".strip(), focal, orientation, gps)


def _number(photos: Sequence[Photo]) -> Iterator[Finding]:
    count = len(photos)
    pairs = count * (count - 1) // 2
    yield Finding("ok", "pairs", f"{pairs} exhaustive pairs")
    if count < FEW_PHOTOS:
        yield Finding("trouble", "pairs", f"a model needs {FEW_PHOTOS} photos or more")
    if count > MANY_PHOTOS:
        advice = "for a video --set 'pair={method: sequential}', else retrieval, poses or list"
        yield Finding("note", "pairs", f"many; {advice}")
    size = count * FEATURE_BYTES
    told = f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:.0f} MB"
    text = f"about {told} for features as sfm stores them"
    yield Finding("ok", "disk", f"{text}; a quarter with extract.compact.encoding=uint8")


def _sizes(photos: Sequence[Photo]) -> Iterator[Finding]:
    sizes = Counter(photo.size for photo in photos)
    text = ", ".join(f"{w} x {h} ({n})" for (w, h), n in sizes.most_common(SHOWN))
    yield Finding("ok", "sizes", text + (" ..." if len(sizes) > SHOWN else ""))
    small = [photo.name for photo in photos if max(photo.size) < SMALL_EDGE_PX]
    if small:
        text = f"smaller than {SMALL_EDGE_PX} px, where little is found"
        yield Finding("note", "sizes", f"{_some(small)} {text}")
    panoramas = [photo.name for photo in photos if photo.size[0] == 2 * photo.size[1]]
    if panoramas:
        text = "twice as wide as high; for 360-degree photos --set dataset.format=panorama"
        yield Finding("note", "sizes", f"{_some(panoramas)} {text}")


def _cameras(photos: Sequence[Photo]) -> Iterator[Finding]:
    cameras = Counter(photo.camera or "unknown" for photo in photos)
    text = ", ".join(f"{name} ({n})" for name, n in cameras.most_common(SHOWN))
    yield Finding("ok", "cameras", text)
    without = [photo.name for photo in photos if not photo.focal]
    if without:
        advice = "it is guessed; if one camera took them: --set dataset.camera_sharing=single"
        yield Finding("note", "EXIF", f"{_some(without)} without a focal length: {advice}")


def _orientation(photos: Sequence[Photo]) -> Iterator[Finding]:
    turned = [photo.name for photo in photos if photo.orientation != 1]
    if turned:
        text = "shown turned by viewers (EXIF); the model is of the pixels as stored"
        yield Finding("note", "orientation", f"{_some(turned)} {text}")


def _gps(photos: Sequence[Photo]) -> Iterator[Finding]:
    located = sum(photo.gps for photo in photos)
    if located:
        advice = "--set dataset.gps={} gives a model in metres"
        yield Finding("ok", "GPS", f"{located} of {len(photos)} photos; {advice}")


def _copies(root: Path, photos: Sequence[Photo]) -> Iterator[Finding]:
    """Files with the same bytes: they match perfectly and tell nothing of depth."""
    same_length: dict[int, list[str]] = defaultdict(list)
    for photo in photos:
        same_length[(root / photo.name).stat().st_size].append(photo.name)
    for names in same_length.values():
        if len(names) < 2:
            continue
        by_hash: dict[str, list[str]] = defaultdict(list)
        for name in names:
            with open(root / name, "rb") as file:
                by_hash[hashlib.file_digest(file, "sha256").hexdigest()].append(name)
        for copies in by_hash.values():
            if len(copies) > 1:
                yield Finding(
                    "note", "copies", f"the same file: {_some(copies)}; remove all but one"
                )


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return f"{', '.join(names[:SHOWN])}{more}"
