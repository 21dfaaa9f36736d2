"""The ways to candidate poses in an RGB-D map, and their settings."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from reconstruct.config import NotIdentity
from reconstruct.features.grid import GridConfig
from reconstruct.indoor.candidate_poses import PoseRansacConfig
from reconstruct.indoor.homographies import HomographyConfig
from reconstruct.matching import dense
from reconstruct.matching.config import MatchConfig, default_match
from reconstruct.stages.compact import CompactConfig
from reconstruct.stages.extract_settings import LocalConfig


class DirectConfig(PoseRansacConfig):
    """Direct PE: the nearest of all features of the map for each of the query, one RANSAC."""

    method: Literal["direct"]
    local: LocalConfig
    """The extractor, as in ``extract.local`` of other pipelines."""
    compact: CompactConfig = CompactConfig.model_validate({})
    """How descriptors are stored, as in ``extract.compact``."""
    min_score: float | None = Field(None, ge=-1, le=1)
    """Keep a match only if the cosine of its descriptors is at least this."""
    search: Literal["exact", "faiss"] = "exact"
    """faiss: an approximate index of that library, for maps of millions of features."""
    cache_mb: Annotated[int, NotIdentity] = Field(2048, ge=1)
    """Memory for descriptors of the map between queries (exact search)."""


class _MatchedConfig(PoseRansacConfig):
    homographies: HomographyConfig | None = HomographyConfig.model_validate({})
    """Verification of pairs by several planes; null: none."""
    images: int = Field(10, ge=1)
    """How many images, those with most verified matches, are tried; so many candidates remain."""
    pooled: bool = False
    """One pose for each place, from the matches with all of its images together."""


class SparseConfig(_MatchedConfig):
    """Sparse PE: local features matched with those of retrieved images."""

    method: Literal["sparse"]
    local: LocalConfig
    """The extractor, as in ``extract.local`` of other pipelines."""
    compact: CompactConfig = CompactConfig.model_validate({})
    """How descriptors are stored, as in ``extract.compact``."""
    match: MatchConfig = default_match()


class DenseCandidatesConfig(_MatchedConfig):
    """Dense PE: grids of descriptors matched coarse to fine with those of retrieved images."""

    method: Literal["dense"]
    local: GridConfig = GridConfig()
    """The grid."""
    compact: CompactConfig = CompactConfig.model_validate({"encoding": "float16"})
    """How descriptors are stored; a grid has many, so dim: 128 and uint8 pay for large maps."""
    match: MatchConfig = dense.DenseMatcherConfig(method="dense")


PoseConfig = Annotated[
    DirectConfig | SparseConfig | DenseCandidatesConfig, Field(discriminator="method")
]
