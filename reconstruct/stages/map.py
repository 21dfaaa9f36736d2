"""Map: verified matches -> sparse/ (and sparse_1/ ... where the photos fall apart)."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Field, model_validator

from reconstruct import colmap
from reconstruct.config import NotIdentity, Section
from reconstruct.errors import ConfigError, EstimationError, UsageError
from reconstruct.images import read_image
from reconstruct.stages import Context
from reconstruct.stages.database import Database
from reconstruct.stages.extract import Extract
from reconstruct.stages.second_pass import SecondPassConfig, pairs_to_align, second_pass
from reconstruct.stages.whole import WholeStage
from reconstruct.workspace import TEMPORARY, atomic_path, fingerprint, remove, tree_hash

logger = logging.getLogger(__name__)


class MapConfig(Section):
    """Section ``map``."""

    method: Literal["incremental", "global", "hierarchical", "triangulate"] = "incremental"
    reference: Annotated[str | None, NotIdentity] = None
    """triangulate: COLMAP model, or output folder of a finished run, whose poses and intrinsics
    are kept as they are; null: the one that comes with the data set."""
    refine_intrinsics: bool | None = None
    """Refine focal length and distortion too. null: only of cameras whose intrinsics were not
    given."""
    pixels: Literal["input", "photo"] = "input"
    """Pixels of ``robust_loss_px`` and of COLMAP's own thresholds: of the picture in which
    keypoints were found (the photo shrunk to the extractor's ``max_edge``; after `refine`, to that
    of ``refine``), or of the photo as it is stored."""
    robust_loss_px: float | None = Field(None, gt=0)
    """End with a bundle adjustment under a Cauchy loss of this scale: observations that lie
    farther off count less, as those of keypoints that `refine` could not move. null: none.
    `triangulate` adjusts no pose and passes it over."""
    second_pass: SecondPassConfig | None = None
    """After that, align keypoints again with what the model says of the surfaces, look for its
    points in the photos where they were not matched, and adjust once more. null: not."""
    min_model_size: int = Field(3, ge=2)
    """Models with fewer images are dropped where there are several."""
    options: dict[str, Any] = Field(default_factory=dict)
    """Further options of COLMAP's mapper, by its own names, e.g. {mapper: {init_max_error: 2}}."""
    threads: Annotated[int, NotIdentity] = -1
    """-1: all cores. Only 1 makes two runs equal bit by bit."""

    @model_validator(mode="after")
    def _check(self) -> MapConfig:
        if self.method != "triangulate" and self.reference is not None:
            raise ValueError("`reference` goes with `method: triangulate`, and only with it")
        if self.method == "triangulate" and self.refine_intrinsics:
            raise ValueError(
                "`method: triangulate` keeps the reference's intrinsics: "
                "leave `refine_intrinsics` out"
            )
        if self.second_pass is not None and self.method == "triangulate":
            raise ValueError("`second_pass` moves poses, which `method: triangulate` keeps")
        if self.second_pass is not None and self.robust_loss_px is None:
            raise ValueError("`second_pass` ends with a robust adjustment: set `robust_loss_px`")
        try:
            colmap.check_options(self.method, self.options)
        except UsageError as error:
            raise ValueError(str(error)) from error
        return self


class Map(WholeStage):
    """The stage."""

    name = "map"

    def __init__(self, context: Context, config: MapConfig, database: Database) -> None:
        super().__init__(context, context.workspace.sparse, [database])
        self.config = config
        self.database = database
        self.reference: Path | None = (
            context.dataset.poses if config.method == "triangulate" else None
        )
        if config.method == "triangulate" and self.reference is None:
            raise ConfigError(
                "map.reference: required with `method: triangulate`, as the data set brings no "
                "poses of its own"
            )
        if self.reference is not None:
            colmap.check_model(self.reference)

    def find_fingerprint(self) -> str | None:
        """Fingerprint over settings, the reference's content, and the database."""
        before = self.database.fingerprint()
        if before is None:
            return None
        reference = self.reference and tree_hash(self.reference)
        return fingerprint("map", self.config.identity(), reference, self.context.seed, before)

    def points(self, extract: Extract) -> tuple[colmap.Tracks, dict[str, colmap.Camera]]:
        """The points that the keypoints of the largest model's images see, and its cameras."""
        model = colmap.read_model(self.context.workspace.sparse)
        return colmap.Tracks(model), colmap.model_cameras(model)

    def make(self) -> None:
        """Write the models. Raises EstimationError if there is none."""
        models = self._models()
        self.workspace.renew_stamp(self.database.artifact)  # COLMAP's mapper touches it
        self._commit(models)

    def _models(self) -> list[colmap.Reconstruction]:
        workspace, dataset = self.context.workspace, self.context.dataset
        scratch = workspace.root / f"mapping{TEMPORARY}"
        remove(scratch)
        common: dict[str, Any] = {
            "seed": self.context.seed,
            "threads": self.config.threads,
            "options": self.config.options,
            "pixel_scale": self._pixel_scale(),
        }
        try:
            if self.reference is not None:
                reference = colmap.read_model(self.reference)
                model = colmap.triangulate(
                    self.database.artifact, dataset.root, scratch, reference, **common
                )
                return [model]
            images = len(dataset.names) - len(dataset.queries)
            with self.context.reporter.task(self.name, images, "images") as advance:
                models = colmap.map_images(
                    self.config.method,
                    self.database.artifact,
                    dataset.root,
                    scratch,
                    constant_cameras=self._constant_cameras(),
                    min_model_size=self.config.min_model_size,
                    registered=advance,
                    **common,
                )
        finally:
            remove(scratch)
        models = [self._founded(self._adjusted(model)) for model in models]
        models = sorted(models, key=lambda model: -model.num_reg_images())
        if not models or not models[0].num_reg_images():
            raise EstimationError(
                f"{self.config.method} mapping found no model: no two photos have enough verified "
                "matches and parallax to start from (see the figures of verify)"
            )
        return models

    def _adjusted(self, model: colmap.Reconstruction) -> colmap.Reconstruction:
        self._adjust(model)
        settings = self.config.second_pass
        if settings is None:
            return model
        pairs = len(pairs_to_align(model, settings))
        with self.context.reporter.task("second pass", pairs, "pairs") as advance:
            again = second_pass(
                model,
                lambda name: read_image(self.context.dataset.path(name)),
                settings,
                self.context.device,
                advance,
            )
        self._adjust(again)
        return again

    def _founded(self, model: colmap.Reconstruction) -> colmap.Reconstruction:
        for name in colmap.drop_unfounded_images(model):
            logger.warning("map: %s has too few points to be sure of, and is left out", name)
        return model

    def _adjust(self, model: colmap.Reconstruction) -> None:
        loss_px = self.config.robust_loss_px
        if loss_px is not None:
            colmap.adjust_robustly(
                model,
                loss_px,
                self._constant_cameras(),
                self.config.threads,
                self._pixel_scale(),
            )

    def _pixel_scale(self) -> float:
        """The factor of limits in pixels: the median over the photos."""
        if self.config.pixels == "photo":
            return 1.0
        names = self.database.cameras.sizes
        return float(np.median([self.database.verified.pixel_scale(name) for name in names]))

    def _constant_cameras(self) -> set[int]:
        assigned = self.database.cameras.assignment
        if self.config.refine_intrinsics is None:
            return assigned.known
        return set() if self.config.refine_intrinsics else set(assigned.cameras)

    def _commit(self, models: list[colmap.Reconstruction]) -> None:
        workspace = self.context.workspace
        for i, model in enumerate(models):
            path = workspace.sparse if i == 0 else workspace.root / f"sparse_{i}"
            if i > 0:
                workspace.set_stamp(path, None)
            with atomic_path(path) as temporary:
                colmap.write_model(model, temporary)
        workspace.forget_models(len(models))

    def figures(self) -> dict[str, Any]:
        """What the models hold, and which photos stayed out."""
        models = [colmap.read_model(path) for path in self.workspace.models()]
        figures: dict[str, Any] = {"models": len(models), **colmap.model_summary(models[0])}
        dataset = self.context.dataset
        names = set(dataset.names) - dataset.query_names - set(self.context.summary.skipped)
        poses: Mapping[str, Any] = colmap.model_poses(models[0])
        figures["of_images"] = len(dataset.names) - len(dataset.queries)
        missing = sorted(names - set(poses))
        if missing:
            figures["not_registered"] = missing
        if self.reference is not None:
            known = colmap.model_poses(colmap.read_model(self.reference))
            unused = set(known) - set(poses) - dataset.query_names
            figures["reference_without_photo"] = sorted(unused)
        return figures
