"""Cameras mounted together: COLMAP's rig configuration, and rigs in its databases and models.

https://colmap.github.io/rigs.html
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable
from functools import cached_property
from pathlib import Path

import numpy as np
import pycolmap
from numpy.typing import NDArray

from reconstruct.colmap.cameras import Camera, make_camera
from reconstruct.colmap.database import opened
from reconstruct.colmap.model_check import UNIT_TOLERANCE
from reconstruct.colmap.models import Reconstruction
from reconstruct.errors import EstimationError, UsageError
from reconstruct.files import parse_json, read_text
from reconstruct.fingerprints import file_hash

LIMIT_BYTES = 1 << 24
"""Of a configuration."""


class Rigs:
    """A rig configuration in COLMAP's JSON format.

    A sensor of a rig is a camera, and its photos are those whose names begin with its prefix.
    Photos of one rig that are called the same after their prefixes were taken at once: a frame.

    Args:
        path: The file. Raises UsageError if it is missing or wrong.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            parse_json(read_text(path, LIMIT_BYTES))  # COLMAP waits for pipes, and for deep nesting
            self._configs = pycolmap.read_rig_config(path)
        except (OSError, ValueError, RuntimeError, LookupError) as error:
            raise UsageError(
                f"{path}: not a rig configuration as COLMAP reads it ({str(error)[:300]}); see "
                "https://colmap.github.io/rigs.html"
            ) from error
        self._sensors = [sensor for rig in self._configs for sensor in rig.cameras]
        for sensor in self._sensors:
            if sensor.cam_from_rig is not None:
                sensor.cam_from_rig = self._checked_pose(sensor.image_prefix, sensor.cam_from_rig)
        prefixes = [sensor.image_prefix for sensor in self._sensors]
        for first in prefixes:
            for other in prefixes:
                if first is not other and other.startswith(first):
                    raise UsageError(
                        f"{path}: photos of prefix {other!r} begin with {first!r} too; end "
                        "prefixes of folders with /"
                    )

    def _checked_pose(self, prefix: str, pose: pycolmap.Rigid3d) -> pycolmap.Rigid3d:
        """A pose with a quaternion of unit length. Raises UsageError if it is none."""
        quaternion = np.asarray(pose.rotation.quat, np.float64)
        length = math.hypot(*quaternion)
        finite = np.isfinite(pose.translation).all()
        if not (abs(length - 1.0) <= UNIT_TOLERANCE and finite):
            raise UsageError(
                f"{self.path}: {prefix!r}: its pose is none: the quaternion has length "
                f"{length:.3g} and not 1, or the translation is not finite"
            )
        if abs(length - 1.0) <= 1e-12:
            return pose
        return pycolmap.Rigid3d(pycolmap.Rotation3d(quaternion / length), pose.translation)

    @cached_property
    def content(self) -> str:
        """SHA-256 of the file."""
        return file_hash(self.path)

    @property
    def calibrated(self) -> bool:
        """Whether the pose of every camera in its rig is given."""
        return all(s.ref_sensor or s.cam_from_rig is not None for s in self._sensors)

    @property
    def has_size(self) -> bool:
        """Whether it says how large a model is: cameras at a known distance."""
        poses = [s.cam_from_rig for s in self._sensors if s.cam_from_rig is not None]
        return self.calibrated and any(np.any(pose.translation) for pose in poses)

    @property
    def one_place(self) -> bool:
        """Whether photos of a frame are taken from one place, so that nothing can be triangulated
        between them: the views of panoramas."""
        return self.calibrated and not self.has_size

    def sensor(self, name: str) -> str | None:
        """The prefix of the camera that took a photo; None if it is in no rig."""
        found = (s.image_prefix for s in self._sensors if name.startswith(s.image_prefix))
        return next(found, None)

    def frame(self, name: str) -> str:
        """What photos of a frame have in common; the name of a photo that is in no rig."""
        for number, rig in enumerate(self._configs):
            for sensor in rig.cameras:
                if name.startswith(sensor.image_prefix):
                    return f"{number:06d}/{name.removeprefix(sensor.image_prefix)}"
        return name

    def cam_from_rig(self, name: str) -> NDArray[np.float64]:
        """(3, 4) pose in its rig of the camera that took a photo, where that is given."""
        for sensor in self._sensors:
            if name.startswith(sensor.image_prefix):
                if sensor.ref_sensor:
                    return np.eye(3, 4)
                if sensor.cam_from_rig is not None:
                    return np.asarray(sensor.cam_from_rig.matrix())
        raise KeyError(name)

    def camera(self, name: str, size: tuple[int, int]) -> Camera | None:
        """The intrinsics that the configuration gives for a photo, if any."""
        for sensor in self._sensors:
            if name.startswith(sensor.image_prefix) and sensor.camera is not None:
                return make_camera(sensor.camera.model.name, sensor.camera.params.tolist(), size)
        return None

    def check(self, names: Iterable[str]) -> None:
        """Raises UsageError if a camera has no photo, or no frame has two."""
        taken: dict[str, set[str]] = defaultdict(set)
        seen = set()
        for name in names:
            prefix = self.sensor(name)
            if prefix is not None:
                seen.add(prefix)
                taken[self.frame(name)].add(prefix)
        for sensor in self._sensors:
            if sensor.image_prefix not in seen:
                raise UsageError(
                    f"{self.path}: no photo's name begins with {sensor.image_prefix!r}; prefixes "
                    "are relative to the folder of the photos"
                )
        if not any(len(prefixes) > 1 for prefixes in taken.values()):
            raise UsageError(
                f"{self.path}: no two photos of a rig have the same name after their prefixes, so "
                "none are known to be taken at once"
            )

    def apply(self, database: Path, model: Reconstruction | None = None) -> None:
        """Join the images of a database to frames.

        Args:
            database: Database of images whose sensors have a camera each; changed in place.
            model: Model of the same images without rigs, from which sensor poses are taken that the
                configuration does not give. None: they stay unknown.

        Raises:
            EstimationError: The model does not determine a sensor's pose.
        """
        try:
            with opened(database) as contents:
                if model is None:
                    pycolmap.apply_rig_config(self._configs, contents)
                else:
                    pycolmap.apply_rig_config(self._configs, contents, model)
                unknown = not self.calibrated and model is not None
                if unknown and not all(map(_is_complete, contents.read_all_rigs())):
                    raise ValueError(
                        "a camera and the reference of its rig are never mapped at once"
                    )
        except (ValueError, IndexError) as error:
            raise EstimationError(
                f"{self.path}: the rigs do not fit the images ({error}); give the poses of cameras "
                "in the rig (cam_from_rig_rotation, cam_from_rig_translation)"
            ) from error


def _is_complete(rig: pycolmap.Rig) -> bool:
    return all(pose is not None for pose in rig.non_ref_sensors.values())


def rig_ids(database: Path) -> set[int]:
    """Ids of the rigs of several cameras in a database."""
    with opened(database) as contents:
        return {rig.rig_id for rig in contents.read_all_rigs() if rig.num_sensors() > 1}


def has_rigs(model: Reconstruction) -> bool:
    """Whether images of a model are joined to frames."""
    return any(rig.num_sensors() > 1 for rig in model.rigs.values())


def rig_size(model: Reconstruction) -> float:
    """Root of the summed squared distances of cameras from the reference of their rig; it grows
    with the scale of the model. 0: there are no rigs, or all their cameras are at one place."""
    poses = [pose for rig in model.rigs.values() for pose in rig.non_ref_sensors.values()]
    return math.sqrt(sum(float(p.translation @ p.translation) for p in poses if p is not None))
