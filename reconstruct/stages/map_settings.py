"""Section ``map``: how a model is made of verified matches."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from reconstruct import colmap
from reconstruct.config import NotIdentity, Section
from reconstruct.errors import UsageError
from reconstruct.stages.second_pass import SecondPassConfig
from reconstruct.stages.upright import UprightConfig

AUTO_IMAGES = 200
"""From so many photos on, global mapping takes less time than incremental mapping: see the
documentation on large sets."""


class MapConfig(Section):
    """Section ``map``."""

    method: Literal["auto", "incremental", "global", "hierarchical", "triangulate"] = "incremental"
    """incremental: photo by photo. global: all rotations, then all positions at once (GLOMAP).
    hierarchical: clusters of photos, each on its own, then merged. triangulate: from known poses.
    auto: `global` from ``auto_images`` on, if intrinsics are given for all photos or for none, else
    `incremental`."""
    auto_images: int = Field(AUTO_IMAGES, ge=1)
    """auto: from so many photos on, mapping is `global`."""
    reference: Annotated[str | None, NotIdentity] = None
    """triangulate: COLMAP model, or output folder of a finished run, whose poses and intrinsics
    are kept as they are; null: the one that comes with the data set."""
    start: Annotated[str | None, NotIdentity] = None
    """incremental: COLMAP model, or output folder of a finished run, to grow from: its coordinate
    frame is kept, and new photos are registered, triangulated and adjusted with its images.
    ``previous``: the model that the output folder holds, if there is one. null: from nothing."""
    fixed: bool = False
    """Poses and intrinsics of ``start`` stay as they are, to the bit: for a map that others refer
    to."""
    snapshot_images: Annotated[int | None, NotIdentity] = Field(None, ge=1)
    """incremental: photos between two snapshots, from which an interrupted run continues. null: a
    twentieth of all, at least five."""
    refine_intrinsics: bool | None = None
    """Refine focal length and distortion too. null: only of cameras whose intrinsics were not
    given."""
    refine_rigs: bool = False
    """In the last bundle adjustment refine the poses of cameras in their rigs that ``dataset.rigs``
    gives, too; of these only the distances then count, for the size of the model."""
    pixels: Literal["input", "photo"] = "input"
    """What a pixel is in ``robust_loss_px`` and COLMAP's own thresholds: a pixel of the picture in
    which keypoints were found (the photo shrunk to the extractor's ``max_edge``; after `refine`, to
    that of ``refine``), or of the photo as it is stored."""
    robust_loss_px: Annotated[float, Field(gt=0)] | Literal["auto"] | None = None
    """End with a bundle adjustment under a Cauchy loss of this scale, in which observations with
    larger errors count less, such as those of keypoints that `refine` could not move. auto: 2.4
    standard deviations of the errors that the model itself shows, so that each observation counts
    as it is exact. null: none. Ignored by `triangulate`, which adjusts no pose."""
    second_pass: SecondPassConfig | None = None
    """After that, align keypoints again, given the surfaces of the model; look for its points in
    photos where they were not matched; and adjust once more. null: no second pass. It needs a first
    pass (section `refine`) and ``robust_loss_px``, and does not apply to `triangulate`, which
    adjusts no pose."""
    upright: UprightConfig | None = None
    """Turn models so that z is up. null: not; with ``dataset.gps`` z is up in any case, and a model
    that grows stays as it was. ``{}``: as most cameras were held."""
    min_model_size: int = Field(3, ge=2)
    """Models with fewer images are dropped where there are several."""
    options: dict[str, Any] = Field(default_factory=dict)
    """Further options of COLMAP's mapper, by its own names, e.g. {mapper: {init_max_error: 2}}."""
    threads: Annotated[int, NotIdentity] = Field(-1, ge=-1)
    """-1: all cores, as is any number above theirs. Only with 1 are two runs equal bit by bit."""

    def identity(self) -> dict[str, Any]:
        """See `Section.identity`; models without what came later are those of before."""
        settings = super().identity()
        later = {"refine_rigs": False, "upright": None}
        unused = {name for name, value in later.items() if settings[name] == value}
        return {name: value for name, value in settings.items() if name not in unused}

    @model_validator(mode="after")
    def _check(self) -> MapConfig:
        if self.method != "triangulate" and self.reference is not None:
            raise ValueError("`reference` goes with `method: triangulate`, and only with it")
        if self.start is not None and self.method not in ("incremental", "auto"):
            raise ValueError("`start` goes with `method: incremental`, and only with it")
        if self.method == "auto" and self.options:
            raise ValueError("`options` are those of one method: name it in place of `auto`")
        if self.fixed and self.start is None:
            raise ValueError("`fixed` keeps the poses of `start`: say which model that is")
        if self.method == "triangulate" and self.refine_intrinsics:
            raise ValueError(
                "`method: triangulate` keeps the reference's intrinsics: "
                "leave `refine_intrinsics` out"
            )
        if self.method == "triangulate" and self.upright is not None:
            raise ValueError(
                "`method: triangulate` keeps the reference's frame: leave `upright` out"
            )
        if self.refine_rigs and self.robust_loss_px is None:
            raise ValueError("`refine_rigs` is part of the last adjustment: set `robust_loss_px`")
        try:
            colmap.check_options(self.method, self.options)
        except UsageError as error:
            raise ValueError(str(error)) from error
        return self
