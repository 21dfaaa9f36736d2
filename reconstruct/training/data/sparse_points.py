"""Training pairs from a COLMAP model without depth: its tracks are the correspondences.

Two photos share the points that both observe; a crop of each is taken around one of these points.
Only cells that contain an observation correspond, so the model has to be dense: SIFT at full size,
and photos shrunk (``zoom`` below 1) until a crop covers enough of them.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Field

from reconstruct import colmap
from reconstruct.config import NotIdentity
from reconstruct.errors import DataError
from reconstruct.fingerprints import tree_hash
from reconstruct.geometry import Float64, apply_homography
from reconstruct.matching.covisibility import sharing_pairs
from reconstruct.training.data.crops import CropsConfig, crop_from_photo, draw_zoom, two_view_group
from reconstruct.training.data.groups import Group, Shape
from reconstruct.training.data.layout import point_correspondences
from reconstruct.training.data.photos import Photos


class SparsePointsConfig(CropsConfig):
    """A COLMAP model and its photos."""

    format: Literal["colmap_points"]
    images: Annotated[str, NotIdentity]
    """Folder of the photos."""
    model: Annotated[str, NotIdentity]
    """The COLMAP model, or the output folder of a run that made one."""
    min_shared: int = Field(200, ge=1)
    """Two photos are a candidate pair if they share at least this many points."""


class SparsePoints:
    """See `reconstruct.training.data.groups.TrainingSet`."""

    def __init__(self, config: SparsePointsConfig, root: Path) -> None:
        self.config = config
        self.folder = colmap.model_folder(root / config.model)
        observed = colmap.observations(colmap.read_model(self.folder))
        self.names = sorted(observed)
        self.photos = Photos([root / config.images / name for name in self.names])
        self.observed = observed
        ids = [np.fromiter(observed[name], np.int64) for name in self.names]
        self.pairs = sharing_pairs(ids, config.min_shared)
        if not self.pairs:
            raise DataError(
                f"{self.folder}: no two photos share {config.min_shared} points; "
                "map with more features, or lower min_shared"
            )

    def identity(self) -> list[Any]:
        """Settings, photos and model."""
        return [self.config.identity(), self.photos.identity(), tree_hash(self.folder)]

    def draw(self, shape: Shape, rng: np.random.Generator) -> Group | None:
        """A group of two photos that share points."""
        pair = self.pairs[int(rng.integers(len(self.pairs)))]
        points = _shared(*(self.observed[self.names[i]] for i in pair))
        chosen = int(rng.integers(len(points[0])))
        zoom = draw_zoom(self.config, rng)
        a, b = (
            crop_from_photo(self.config, side[chosen], zoom, shape.crop_px, rng) for side in points
        )
        cells = point_correspondences(
            shape.layout,
            shape.crop_px,
            apply_homography(a, points[0]),
            apply_homography(b, points[1]),
        )
        if len(cells) < shape.min_correspondences:
            return None
        first, second = (self.photos.read(i) for i in pair)
        return two_view_group((first, second), (a, b), cells, shape, self.config, rng)


def _shared(
    first: dict[int, tuple[float, float]], second: dict[int, tuple[float, float]]
) -> tuple[Float64, Float64]:
    """(N, 2) positions in both photos of the points that both observe."""
    ids = sorted(first.keys() & second.keys())
    rows = [np.array([side[i] for i in ids], np.float64).reshape(-1, 2) for side in (first, second)]
    return rows[0], rows[1]
