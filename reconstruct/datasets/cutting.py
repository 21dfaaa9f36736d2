"""Panoramas cut into views, as files.

The view ``yaw060_pitch+00`` of ``a/P1.jpg`` is ``yaw060_pitch+00/a/P1.jpg``. Each has a mask: where
views overlap a direction counts in one of them. What is there is not cut again as long as the
content of the panorama and of its own mask is the same.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from PIL import ExifTags, Image

from reconstruct.atomic import atomic_path
from reconstruct.datasets.scratch import claim
from reconstruct.datasets.sphere import SphereView, cut, nearest_view
from reconstruct.errors import ArtifactError, DataError, ImageError
from reconstruct.fingerprints import file_hash, fingerprint
from reconstruct.geometry import quaternion
from reconstruct.images import opened_exif, read_image
from reconstruct.parallel import ahead
from reconstruct.types import ImageArray

logger = logging.getLogger(__name__)

VERSION = 1
"""Raise it when the same panorama is to give other views."""
QUALITY = 95
THREADS = 2
KEPT_TAGS = (ExifTags.Base.Make, ExifTags.Base.Model, ExifTags.Base.DateTime)


class Cutter:
    """Cuts panoramas into views.

    Args:
        source: Folder of the panoramas.
        given_masks: Folder of their masks, or None.
        scratch: Folder for ``images`` and ``masks`` of the views, and ``rigs.json``.
        views: The views.
    """

    def __init__(
        self, source: Path, given_masks: Path | None, scratch: Path, views: Sequence[SphereView]
    ) -> None:
        self.source = source
        self.given_masks = given_masks
        self.views = views
        self.scratch = scratch
        self.root, self.masks = scratch / "images", scratch / "masks"
        self._rigs, self._record = scratch / "rigs.json", scratch / "images.json"

    def cut_all(self, panoramas: Iterable[str]) -> tuple[dict[str, str], dict[str, str]]:
        """Cut what is not up to date.

        Args:
            panoramas: Their names.

        Returns:
            The names of all views -> their panoramas; and of panoramas that cannot be used the
            names -> the reason.

        Raises:
            DataError: None can be used.
            UsageError: What is in the folder for the views is not this program's.
        """
        known = self._read_record()
        made = (self.root, self.masks, self._rigs, self._record)
        claim(self.scratch, *(path.name for path in made), known=bool(known))
        record: dict[str, str] = {}
        unused: dict[str, str] = {}

        def work(name: str) -> tuple[str, str | ImageError]:
            try:
                return name, self._cut(name, known.get(name))
            except ImageError as error:
                return name, error

        for name, outcome in ahead(work, panoramas, THREADS):
            if isinstance(outcome, str):
                record[name] = outcome
            else:
                unused[name] = str(outcome).removeprefix(f"{self.source / name}: ")
        if not record:
            name, reason = next(iter(unused.items()))
            raise DataError(f"{self.source}: no panorama can be used, e.g. {name}: {reason}")
        if record != known:
            with atomic_path(self._record) as temporary:
                temporary.write_text(json.dumps(record, indent=1, sort_keys=True), encoding="utf-8")
            logger.info("cut %d panoramas into %d views each", len(record), len(self.views))
        return {self._name(view, name): name for name in record for view in self.views}, unused

    def write_rigs(self) -> Path:
        """The views as a rig configuration of COLMAP's, in which a panorama is a frame; its file.

        The frame of the rig is that of the first view.
        """
        first = self.views[0].rotation
        cameras: list[dict[str, Any]] = []
        for view in self.views:
            middle = view.size / 2
            pose = {
                "cam_from_rig_rotation": quaternion(view.rotation @ first.T).tolist(),
                "cam_from_rig_translation": [0.0, 0.0, 0.0],
            }
            cameras.append(
                {
                    "image_prefix": f"{_folder(view)}/",
                    "camera_model_name": "PINHOLE",
                    "camera_params": [view.focal, view.focal, middle, middle],
                    **({"ref_sensor": True} if view is self.views[0] else pose),
                }
            )
        with atomic_path(self._rigs) as temporary:
            temporary.write_text(json.dumps([{"cameras": cameras}], indent=1), encoding="utf-8")
        return self._rigs

    def _cut(self, name: str, known: str | None) -> str:
        """Cut a panorama unless it is up to date; returns the fingerprint of its views.

        Raises ImageError naming the file.
        """
        path, mask = self.source / name, self._given_mask(name)
        try:
            content = [file_hash(path), None if mask is None else file_hash(mask)]
        except ArtifactError as error:
            raise ImageError(str(error)) from error
        wanted = fingerprint("views", VERSION, QUALITY, [repr(v) for v in self.views], *content)
        names = [self._name(view, name) for view in self.views]
        files = [*(self.root / n for n in names), *(self.masks / f"{n}.png" for n in names)]
        if known == wanted and all(file.is_file() for file in files):
            return wanted
        panorama, exif = _read(path), _exif(path)
        seen = None if mask is None else _read_mask(mask, panorama)
        for view, view_name in zip(self.views, names, strict=True):
            with atomic_path(self.root / view_name) as temporary:
                options: dict[str, Any] = {"quality": QUALITY, "subsampling": 0, "exif": exif}
                Image.fromarray(cut(panorama, view)).save(temporary, format="JPEG", **options)
            counts = self._nearest[view]
            if seen is not None:
                counts = np.where(cut(seen, view)[..., 0] == 255, counts, 0).astype(np.uint8)
            with atomic_path(self.masks / f"{view_name}.png") as temporary:
                Image.fromarray(counts).save(temporary, format="PNG")
        return wanted

    @cached_property
    def _nearest(self) -> dict[SphereView, ImageArray]:
        return {view: nearest_view(self.views, view) for view in self.views}

    @staticmethod
    def _name(view: SphereView, panorama: str) -> str:
        is_jpeg = panorama.lower().endswith((".jpg", ".jpeg"))
        return f"{_folder(view)}/{panorama}" + ("" if is_jpeg else ".jpg")

    def _given_mask(self, name: str) -> Path | None:
        path = None if self.given_masks is None else self.given_masks / f"{name}.png"
        return path if path is not None and path.is_file() else None

    def _read_record(self) -> dict[str, str]:
        """Panorama -> fingerprint under which it was cut."""
        try:
            found = json.loads(self._record.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return found if isinstance(found, dict) else {}


def _folder(view: SphereView) -> str:
    return f"yaw{round(view.yaw_deg):03d}_pitch{round(view.pitch_deg):+03d}"


def _read(path: Path) -> ImageArray:
    panorama = read_image(path)
    height, width = panorama.shape[:2]
    if width != 2 * height:
        raise ImageError(
            f"{path}: {width} x {height} pixels; an equirectangular panorama of the whole sphere "
            "is twice as wide as high: export it so, or leave it out"
        )
    return panorama


def _read_mask(path: Path, panorama: ImageArray) -> ImageArray:
    """(H, 2 H, 1) uint8: 255 where the mask of a panorama lets keypoints be, else 0."""
    mask = read_image(path)
    if mask.shape != panorama.shape:
        raise ImageError(
            f"{path}: a mask of {mask.shape[1]} x {mask.shape[0]} pixels for a panorama of "
            f"{panorama.shape[1]} x {panorama.shape[0]}; resize it"
        )
    return np.where(mask.any(axis=-1, keepdims=True), 255, 0).astype(np.uint8)


def _exif(path: Path) -> Image.Exif:
    """What holds for the views too: who took the panorama, when and where."""
    kept = Image.Exif()
    try:
        with opened_exif(path) as found:
            kept.update({tag: found[tag] for tag in KEPT_TAGS if tag in found})
            kept.get_ifd(ExifTags.IFD.GPSInfo).update(found.get_ifd(ExifTags.IFD.GPSInfo))
            kept.tobytes()  # fails here, not when a view is written
    except ImageError:  # broken EXIF data: not pixels
        return Image.Exif()
    return kept
