"""Section ``dataset`` of a training file -> `TrainingSet`; several of them mixed by weight."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Field, model_validator

from reconstruct.config import NotIdentity, Section
from reconstruct.training.data.colmap_depth import ColmapDepth, ColmapDepthConfig
from reconstruct.training.data.fixed_views import FixedViews, FixedViewsConfig
from reconstruct.training.data.groups import Group, Shape, TrainingSet
from reconstruct.training.data.homographies import Homographies, HomographiesConfig
from reconstruct.training.data.megadepth import MegaDepth, MegaDepthConfig
from reconstruct.training.data.rgbd import Rgbd, RgbdConfig
from reconstruct.training.data.sparse_points import SparsePoints, SparsePointsConfig

OneSource = Annotated[
    HomographiesConfig
    | FixedViewsConfig
    | RgbdConfig
    | SparsePointsConfig
    | ColmapDepthConfig
    | MegaDepthConfig,
    Field(discriminator="format"),
]


class MixConfig(Section):
    """Several training sets."""

    format: Literal["mix"]
    images: Annotated[str, NotIdentity] = "."
    """Folder to which the paths of the training sets are relative."""
    sources: tuple[OneSource, ...] = Field(min_length=1, strict=False)
    """The training sets."""
    weights: tuple[float, ...] = Field(strict=False)
    """Relative share of the groups that each training set provides."""

    @model_validator(mode="after")
    def _check_weights(self) -> MixConfig:
        if len(self.weights) != len(self.sources) or min(self.weights) <= 0:
            raise ValueError(
                f"weights: expected {len(self.sources)} positive numbers, one for each of "
                f"`sources`, got {list(self.weights)}"
            )
        return self


DataConfig = Annotated[OneSource | MixConfig, Field(discriminator="format")]


class Mix:
    """See `reconstruct.training.data.groups.TrainingSet`."""

    def __init__(self, config: MixConfig, root: Path) -> None:
        self.sources = [load_source(source, root / config.images) for source in config.sources]
        self.shares = np.array(config.weights) / sum(config.weights)

    def identity(self) -> list[Any]:
        """Identities of the training sets, and their shares."""
        return [[source.identity() for source in self.sources], self.shares.tolist()]

    def draw(self, shape: Shape, rng: np.random.Generator) -> Group | None:
        """A group of one of the training sets."""
        chosen = int(rng.choice(len(self.sources), p=self.shares))
        # The same set is tried until it yields a group: one that seldom does keeps its share.
        for _ in range(50):
            group = self.sources[chosen].draw(shape, rng)
            if group is not None and group.pairs:
                return group
        return None


def load_source(config: Any, root: Path = Path()) -> TrainingSet:
    """The training set that a section describes. Raises UsageError or DataError naming the
    folder."""
    classes: dict[type[Section], Any] = {
        HomographiesConfig: Homographies,
        FixedViewsConfig: FixedViews,
        RgbdConfig: Rgbd,
        SparsePointsConfig: SparsePoints,
        ColmapDepthConfig: ColmapDepth,
        MegaDepthConfig: MegaDepth,
        MixConfig: Mix,
    }
    source: TrainingSet = classes[type(config)](config, root)
    return source
