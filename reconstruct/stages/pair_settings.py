"""Section ``pair``: which images are matched with which, a class for each method."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from reconstruct.config import NotIdentity, Section


class QueryExhaustive(Section):
    """Every image with every other; every query with every image of the map."""

    method: Literal["exhaustive"] = "exhaustive"


class QueryRetrieval(Section):
    """The most similar by global descriptor (``extract.global``)."""

    method: Literal["retrieval"]
    neighbors: int = Field(20, ge=1)
    """Neighbours of each image (or query)."""


class QueryList(Section):
    """Two names a line in a text file."""

    method: Literal["list"]
    path: Annotated[str, NotIdentity]


class _MapPairs(Section):
    queries: Annotated[
        QueryExhaustive | QueryRetrieval | QueryList, Field(discriminator="method")
    ] = QueryExhaustive()
    """How photos to localize are paired with those of the map."""


class ExhaustiveConfig(_MapPairs, QueryExhaustive):
    """Every image with every other: best up to some hundred images."""


class SequentialConfig(_MapPairs):
    """Each image with its successors in the order of names: for videos.

    For cameras that are mounted together (``dataset.rigs``): each frame with its successors."""

    method: Literal["sequential"]
    overlap: int = Field(10, ge=1)
    """Number of successors."""
    quadratic: bool = False
    """Also the successors at distances 2, 4, 8 ... up to 2 ** overlap."""
    loop_every: int | None = Field(None, ge=1)
    """Every n-th image is also matched with every other n-th image: closes loops."""


class RetrievalConfig(_MapPairs, QueryRetrieval):
    """The most similar by global descriptor (``extract.global``): large collections."""

    within_folders: bool = False
    """Only images of the same folder."""
    search: Literal["exact", "faiss"] = "exact"
    """faiss: an approximate index of that library, for more than some ten thousand images."""

    @model_validator(mode="after")
    def _all_in_one_index(self) -> Self:
        if self.search == "faiss" and self.within_folders:
            raise ValueError("`search: faiss` looks in all folders; `within_folders` needs `exact`")
        return self

    def identity(self) -> dict[str, Any]:
        """The same as before there was another search, so that older pairs stay valid."""
        own = super().identity()
        if self.search == "exact":
            del own["search"]
        return own


class PosesConfig(_MapPairs):
    """The nearest by position and view direction in a reference model."""

    method: Literal["poses"]
    reference: Annotated[str | None, NotIdentity] = None
    """COLMAP model folder with poses; null: that from which the map is triangulated."""
    neighbors: int = Field(20, ge=1)
    """Neighbours of each image."""
    max_angle_deg: float = Field(45.0, gt=0, le=180)
    """Images that look farther apart than this are not matched."""


class GpsPairsConfig(_MapPairs):
    """The nearest by position (``dataset.gps``): for photos with GPS.

    A photo without a position may be anywhere, and is paired with all others."""

    method: Literal["gps"]
    neighbors: int = Field(20, ge=1)
    """Neighbours of each image."""
    max_distance_m: float | None = Field(None, gt=0)
    """Images farther apart are not matched; null: any."""
    overlap: int = Field(2, ge=0)
    """Also this many successors of each image in the order of names: they connect images whose
    position is far off."""


class CovisibilityConfig(_MapPairs):
    """Images that share most points of a reference model."""

    method: Literal["covisibility"]
    reference: Annotated[str | None, NotIdentity] = None
    """COLMAP model folder with points; null: that from which the map is triangulated."""
    neighbors: int = Field(20, ge=1)
    """Neighbours of each image."""


class ListConfig(_MapPairs, QueryList):
    """Two names a line in a text file."""


class NoneConfig(_MapPairs):
    """No pairs among the images of the map: an RGB-D map has its points already, and only queries
    are matched."""

    method: Literal["none"]


PairConfig = Annotated[
    ExhaustiveConfig
    | SequentialConfig
    | RetrievalConfig
    | PosesConfig
    | GpsPairsConfig
    | CovisibilityConfig
    | ListConfig
    | NoneConfig,
    Field(discriminator="method"),
]
