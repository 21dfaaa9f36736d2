"""Section ``refine``: the settings of keypoint refinement."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from reconstruct.config import NotIdentity, Section


class RefineConfig(Section):
    """Section ``refine``. Pixels are those of the photo at ``max_edge``."""

    method: Literal["multiview"] = "multiview"

    max_edge: int | None = Field(default=1600, ge=64)
    """Photos are shrunk to this longest edge before patches are compared; null: never."""

    neighbors: int = Field(default=10, ge=3)
    """Number of nearest matches to which the local affinity of a match is fitted."""

    iterations: int = Field(default=10, ge=1)
    """Lucas-Kanade steps in each window."""

    min_correlation: float = Field(default=0.7, ge=-1, le=1)
    """An alignment is accepted if the weighted correlation of the two patches is at least this."""

    min_edge_correlation: float | None = Field(default=None, ge=-1, le=1)
    """Where grey values do not align, the strength of edges is compared, as between day and night;
    such an alignment is accepted at this correlation (0.4 suits). null: it is not tried."""

    edge_sigma_px: float = Field(default=1.0, gt=0)
    """Error of an alignment of edges: added to its covariance."""

    min_map_similarity: float | None = Field(default=None, ge=-1, le=1)
    """Where grey values do not align, as between day and night, maps of the network's first layers
    are searched for the patch; what is found is accepted at this similarity (0.1 suits). null:
    nothing is searched."""

    map_sigma_px: float = Field(default=0.7, gt=0)
    """Error of what was found in the maps: its standard deviation."""

    max_move_px: float = Field(default=12.0, gt=0)
    """It is accepted only if it moves the match by no more than this (D2-Net's cells are 4 network
    pixels wide)."""

    max_sigma_px: float = Field(default=0.5, gt=0)
    """It is accepted only if the gradients of the patch determine its position to this standard
    deviation."""

    model_sigma_px: float = Field(default=0.1, gt=0)
    """Error of an alignment beyond image noise (perspective, relief): added to its covariance."""

    prior_sigma_px: float = Field(default=2.0, gt=0)
    """Standard deviation of detections around the point that they show. This prior pulls every
    keypoint to where it was detected: without it, tracks drift to wherever their affinities happen
    to agree."""

    duplicate_px: float = Field(default=1.5, ge=0)
    """Two keypoints of one image may share a track if alignment brings them this close: then they
    are one point, detected twice. Otherwise the track is split between them."""

    robust_scale: float = Field(default=3.0, gt=0)
    """Scale of the Cauchy loss on alignments, in standard deviations."""

    max_residual_px: float = Field(default=1.0, gt=0)
    """A keypoint counts as refined if at least one of its alignments agrees with it to this."""

    chunk: Annotated[int, NotIdentity] = Field(default=256, ge=1)
    """Matches aligned at once: bounds the memory, and should fit a CPU's cache."""

    def identity(self) -> dict[str, Any]:
        """See `Section.identity`; without the maps where they are not searched, so that older
        alignments stay valid."""
        settings = super().identity()
        if self.min_map_similarity is None:
            del settings["min_map_similarity"]
            if self.map_sigma_px == type(self).model_fields["map_sigma_px"].default:
                del settings["map_sigma_px"]
        return settings

    cache_mb: Annotated[int, NotIdentity] = Field(default=1024, ge=1)
    """Memory for image pyramids that are kept for later pairs (10 MB each at 1600 pixels)."""
