"""Photos that COLMAP's programs do not open: converted once to JPEG, with their EXIF data.

The converted photo of ``a/IMG_1.HEIC`` is ``a/IMG_1.HEIC.jpg``, in a folder that links to all other
photos, so that a model's names are relative to one folder. A photo is not converted again as long
as the content of its original stays the same.
"""

from __future__ import annotations

import importlib.util
import io
import json
import logging
import os
import shutil
import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image, UnidentifiedImageError, features

from reconstruct.atomic import atomic_path, remove
from reconstruct.datasets.accelerometer import NOTE
from reconstruct.datasets.scratch import claim
from reconstruct.errors import ArtifactError, DataError, ImageError, UsageError
from reconstruct.files import read_json
from reconstruct.fingerprints import file_hash, fingerprint, is_fingerprint
from reconstruct.images import MAX_MEGAPIXELS, read_image_bytes
from reconstruct.parallel import ahead

logger = logging.getLogger(__name__)

HEIF = frozenset({".heic", ".heif"})
PILLOW = frozenset({".avif", ".webp"})
RAW = frozenset(
    {".3fr", ".arw", ".cr2", ".cr3", ".dng", ".erf", ".iiq", ".nef", ".nrw"}
    | {".orf", ".pef", ".raf", ".rw2", ".srw"}
)
CONVERTED = HEIF | PILLOW | RAW
"""Extensions of what is converted."""

VERSION = 2
"""To be increased when originals should be converted again."""
QUALITY = 97
"""Of JPEG: what it loses is far below the noise of a photo."""
THREADS = 2
LARGEST_NOTE_BYTES = 1 << 14
MAKER_NOTE, ORIENTATION, EXIF_IFD = 0x927C, 0x0112, 0x8769


@dataclass(frozen=True, slots=True, kw_only=True)
class Converted:
    """A folder with all photos of a data set.

    names: of the photos in ``root``, sorted. originals: of converted ones, the names before.
    skipped: original -> why it could not be converted.
    """

    root: Path
    names: tuple[str, ...]
    originals: dict[str, str]
    skipped: dict[str, str]


def is_foreign(name: str) -> bool:
    """Whether a photo of this name is converted."""
    return Path(name).suffix.lower() in CONVERTED


def without_twins(names: Iterable[str]) -> list[str]:
    """``names`` without those photos that are there in two formats, as cameras store them: of these
    the one that need not be converted stays."""
    names = list(names)
    plain = {name for name in names if not is_foreign(name)}
    stems = {name.rpartition(".")[0].lower() for name in plain}

    def is_twin(name: str) -> bool:
        return name.rpartition(".")[0].lower() in stems or f"{name}.jpg" in plain

    return [name for name in names if not (is_foreign(name) and is_twin(name))]


def convert_photos(root: Path, names: Iterable[str], target: Path) -> Converted:
    """Convert the photos that need it.

    Args:
        root: Folder of the photos.
        names: Names of photos, of any format.
        target: Folder for the converted ones, and for links to the others.

    Returns:
        The photos in ``target``.

    Raises:
        DataError: None is left.
        UsageError: ``target`` is there, and is not this program's.
    """
    names = list(names)
    foreign = [name for name in names if is_foreign(name)]
    record = _read_record(target)
    claim(target.parent, target.name, _record_path(target).name, known=bool(record))
    if root.resolve() == target.resolve():
        raise UsageError(
            f"{root}: photos are converted into this folder; move them to another one, and give "
            "that with --images"
        )
    kept = {f"{name}.jpg": name for name in foreign}
    skipped: dict[str, str] = {}

    def work(name: str) -> tuple[str, str | ImageError]:
        try:
            return name, _convert(root / name, target / f"{name}.jpg", record.get(name))
        except ImageError as error:
            return name, error

    fresh: dict[str, str] = {}
    for name, outcome in ahead(work, foreign, THREADS):
        if isinstance(outcome, str):
            fresh[name] = outcome
        else:
            skipped[name] = str(outcome).removeprefix(f"{root / name}: ")
            del kept[f"{name}.jpg"]
            remove(target / f"{name}.jpg")
    for name in names:
        if not is_foreign(name):
            _link(root / name, target / name)
    if fresh != record:
        _write_record(target, fresh)
    made = sum(record.get(name) != value for name, value in fresh.items())
    if made:
        logger.info("converted %d photos to JPEG in %s", made, target)
    plain = [name for name in names if not is_foreign(name)]
    if not plain and not kept:
        name, reason = next(iter(skipped.items()))
        raise DataError(f"{root}: none of {len(names)} photos can be used, e.g. {name}: {reason}")
    return Converted(
        root=target, names=tuple(sorted([*plain, *kept])), originals=kept, skipped=skipped
    )


def _convert(source: Path, target: Path, known: str | None) -> str:
    """Convert a photo unless it is up to date; returns the fingerprint of its original.

    Raises ImageError naming the file.
    """
    read = reader_of(source)
    try:
        wanted = fingerprint("converted", VERSION, QUALITY, file_hash(source))
    except ArtifactError as error:
        raise ImageError(str(error)) from error
    if known == wanted and target.is_file():
        return wanted
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # broken EXIF data: not pixels
            image, exif = read(source)
            _save(image, exif, target)
    except ImageError:
        raise
    except Exception as error:  # the libraries' own, of which there is no list
        raise ImageError(
            f"{source}: not a readable photo ({_reason(error)[:200]}); replace or remove it"
        ) from error
    return wanted


def _reason(error: Exception) -> str:
    if isinstance(error, UnidentifiedImageError):  # would tell an address in memory
        return "not the content of such a file"
    if error.args and isinstance(error.args[0], bytes):  # LibRaw's
        return error.args[0].decode("utf-8", "replace")
    return str(error) or type(error).__name__


Reader = Callable[[Path], tuple[Image.Image, Image.Exif]]
"""A file -> its picture and EXIF data."""


def reader_of(source: Path) -> Reader:
    """What reads a file. Raises ImageError if that is not installed."""
    suffix = source.suffix.lower()
    readers: Mapping[str, tuple[Reader, str, str]] = {
        **dict.fromkeys(HEIF, (_read_heif, "pillow_heif", "heif")),
        **dict.fromkeys(RAW, (_read_raw, "rawpy", "raw")),
        **dict.fromkeys(PILLOW, (_read_pillow, "PIL", "")),
    }
    reader, package, extra = readers[suffix]
    if suffix == ".avif" and not features.check("avif"):
        raise ImageError(f"{source}: .avif files need a newer Pillow: pip install 'pillow>=11.3'")
    if importlib.util.find_spec(package) is None:
        raise ImageError(
            f"{source}: {suffix} files need an extra package: pip install 'reconstruct[{extra}]', "
            "or convert it to .jpg"
        )
    return reader


def _read_pillow(source: Path) -> tuple[Image.Image, Image.Exif]:
    with Image.open(io.BytesIO(read_image_bytes(source)), formats=("WEBP", "AVIF")) as image:
        _check_size(source, image.size)
        image.load()
        return image, image.getexif()


def _read_heif(source: Path) -> tuple[Image.Image, Image.Exif]:
    import pillow_heif

    file = pillow_heif.open_heif(io.BytesIO(read_image_bytes(source)))
    _check_size(source, file.size)
    image = file.to_pillow()  # turned as the file asks for, and its EXIF orientation set to none
    return image, image.getexif()


def _read_raw(source: Path) -> tuple[Image.Image, Image.Exif]:
    import rawpy

    data = read_image_bytes(source)
    with rawpy.imread(io.BytesIO(data)) as raw:
        _check_size(source, (raw.sizes.width, raw.sizes.height))
        image = Image.fromarray(
            raw.postprocess(use_camera_wb=True)
        )  # turned as the camera was held
        exif = _raw_exif(data, raw)
    exif[ORIENTATION] = 1
    return image, exif


def _raw_exif(data: bytes, raw: Any) -> Image.Exif:
    """EXIF data of a raw file: most are TIFF files; of others, that of their preview."""
    exif = Image.Exif()
    try:
        exif.load(b"Exif\0\0" + data[: 1 << 24])
    except (SyntaxError, ValueError, OSError, KeyError, TypeError):
        try:
            with Image.open(io.BytesIO(raw.extract_thumb().data), formats=("JPEG",)) as preview:
                return preview.getexif()
        except Exception:  # no preview, or none that says anything
            return Image.Exif()
    kept = Image.Exif()
    for tag in (0x010F, 0x0110, 0x0132):  # make, model, time; the rest describes raw pixels
        if tag in exif:
            kept[tag] = exif[tag]
    for ifd in (EXIF_IFD, 0x8825):
        found = {k: v for k, v in exif.get_ifd(ifd).items() if k != MAKER_NOTE}
        if found:
            kept.get_ifd(ifd).update(found)
    return kept


def _check_size(source: Path, size: tuple[int, int]) -> None:
    if size[0] * size[1] > MAX_MEGAPIXELS * 1e6:
        raise ImageError(
            f"{source}: {size[0]} x {size[1]} pixels are more than the limit of "
            f"{MAX_MEGAPIXELS:g} megapixels; shrink the photo"
        )


def _save(image: Image.Image, exif: Image.Exif, target: Path) -> None:
    tags = exif.get_ifd(EXIF_IFD)
    note = tags.pop(MAKER_NOTE, b"")
    # Most are larger than a JPEG file takes, or point into their old file. Apple's do not.
    if isinstance(note, bytes) and note.startswith(NOTE) and len(note) <= LARGEST_NOTE_BYTES:
        tags[MAKER_NOTE] = note
    options: dict[str, Any] = {"exif": exif.tobytes()} if len(exif) else {}
    if image.info.get("icc_profile"):
        options["icc_profile"] = image.info["icc_profile"]
    with atomic_path(target) as temporary:
        image.convert("RGB").save(
            temporary, format="JPEG", quality=QUALITY, subsampling=0, **options
        )


def _link(source: Path, target: Path) -> None:
    source = source.absolute()
    if target.is_symlink() and Path(os.readlink(target)) == source:
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    remove(target)
    try:
        target.symlink_to(source)
    except OSError:  # a file system without links
        shutil.copyfile(source, target)


def _record_path(target: Path) -> Path:
    return target.with_name(f"{target.name}.json")


def _read_record(target: Path) -> dict[str, str]:
    """Original -> fingerprint under which it was converted."""
    try:
        found = read_json(_record_path(target))
    except (OSError, ValueError):
        return {}
    whole = isinstance(found, dict) and all(is_fingerprint(value) for value in found.values())
    return found if whole else {}


def _write_record(target: Path, record: Mapping[str, str]) -> None:
    with atomic_path(_record_path(target)) as temporary:
        temporary.write_text(json.dumps(record, indent=1, sort_keys=True), encoding="utf-8")
