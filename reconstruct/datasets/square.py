"""Format ``synthetic``: the rendered town square of the demo."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field

from reconstruct.atomic import atomic_path
from reconstruct.datasets import Dataset
from reconstruct.datasets.cameras import CamerasConfig
from reconstruct.datasets.folder import list_images
from reconstruct.datasets.synthetic import write_dataset
from reconstruct.errors import UsageError
from reconstruct.fingerprints import fingerprint


class SyntheticConfig(CamerasConfig):
    """A rendered town square with exact ground truth: no photos are needed."""

    format: Literal["synthetic"]
    views: int = Field(12, ge=2)
    """Photos, on an arc around the square."""
    width: int = Field(640, ge=64)
    """Size of a photo in pixels."""
    height: int = Field(480, ge=64)
    """Size of a photo in pixels."""
    scene_seed: int = Field(0, ge=0)
    """Seed of the textures and of the noise."""
    lighting: Literal["day", "night"] = "day"
    """night: only lamps and lit windows."""
    known_intrinsics: bool = True
    """Map with the exact intrinsics; false: they are guessed and refined, as for any photo."""

    def load(self, scratch: Path) -> Dataset:
        """The photos, rendered to ``scratch`` unless they are there already.

        Raises UsageError if there is another folder of that name.
        """
        size = (self.width, self.height)
        night = self.lighting == "night"
        stamp, value = scratch / "fingerprint", fingerprint("synthetic", self.identity())
        if scratch.exists() and not stamp.is_file():
            raise UsageError(f"{scratch}: not a rendered data set; choose another --output")
        if not stamp.is_file() or stamp.read_text() != value:
            with atomic_path(scratch) as temporary:
                write_dataset(
                    temporary, views=self.views, size=size, seed=self.scene_seed, night=night
                )
                (temporary / "fingerprint").write_text(value)
        root = scratch / ("night" if night else "images")
        reference = scratch / ("night_reference" if night else "reference")
        names, skipped = list_images(root)
        return Dataset(
            root=root,
            names=names,
            skipped=skipped,
            cameras=reference if self.known_intrinsics else None,
            reference=reference,
        )
