"""Map: verified matches -> sparse/ (and sparse_1/ ... where the photos fall apart)."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Field, model_validator

from reconstruct import colmap
from reconstruct.config import NotIdentity, Section
from reconstruct.datasets.gps import GpsPositions
from reconstruct.errors import ConfigError, EstimationError, UsageError
from reconstruct.images import read_image
from reconstruct.stages import Context
from reconstruct.stages.database import Database
from reconstruct.stages.extract import Extract
from reconstruct.stages.georegister import (
    align_with_gps,
    gps_figures,
    priors,
    read_gps,
    write_gps,
)
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
    """Pixels of ``robust_loss_px`` and of COLMAP's own thresholds: of the photo as the extractor
    saw it, shrunk to its ``max_edge``, or of the photo as it is stored."""
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
        elif database.rigs is not None and config.method == "global" and not config.robust_loss_px:
            raise ConfigError(
                "map.robust_loss_px: required with `method: global` and dataset.rigs, whose size "
                "the model takes in its last adjustment"
            )

    def find_fingerprint(self) -> str | None:
        """Fingerprint over settings, the reference's content, and the database."""
        before = self.database.fingerprint()
        if before is None:
            return None
        reference = self.reference and tree_hash(self.reference)
        more = [self._unknown_rigs.content] if self._unknown_rigs is not None else []
        settings = self.config.identity()
        return fingerprint("map", settings, reference, self.context.seed, before, *more)

    @property
    def _unknown_rigs(self) -> colmap.Rigs | None:
        """Rigs whose poses are to be estimated."""
        rigs = self.context.dataset.rigs
        return rigs if self.reference is None and rigs and not rigs.calibrated else None

    @property
    def gps(self) -> GpsPositions | None:
        """Positions that the models are aligned with; those of a reference stay as they are."""
        return self.context.dataset.gps if self.reference is None else None

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
            models = self._mapped(self.database.artifact, scratch, common)
            if models and self._unknown_rigs is not None:
                with_rigs = scratch / "database.db"
                shutil.copyfile(self.database.artifact, with_rigs)
                self._unknown_rigs.apply(with_rigs, models[0])
                models = self._mapped(with_rigs, scratch, common)
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

    def _mapped(
        self, database: Path, scratch: Path, common: Mapping[str, Any]
    ) -> list[colmap.Reconstruction]:
        dataset = self.context.dataset
        images = len(dataset.names) - len(dataset.queries)
        with self.context.reporter.task(self.name, images, "images") as advance:
            return colmap.map_images(
                self.config.method,
                database,
                dataset.root,
                scratch,
                constant_cameras=self._constant_cameras(),
                min_model_size=self.config.min_model_size,
                prior_positions=self._grows_with_positions,
                constant_rigs=self.database.rigs is not None,
                registered=advance,
                **common,
            )

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
                self._positions(model),
                self.database.rigs is not None,
            )

    @property
    def _grows_with_positions(self) -> bool:
        # COLMAP aligns a growing model in three dimensions: without altitudes it would be tilted.
        return self.gps is not None and self.gps.has_altitudes and not self._has_size

    def _positions(self, model: colmap.Reconstruction) -> dict[str, colmap.Prior] | None:
        """Measured positions of the cameras of a model, which is aligned with them."""
        if self.gps is None:
            return None
        aligned = self._align(model)
        keep = aligned["aligned"] and not self._has_size
        return priors(model, self.gps, aligned) if keep else None

    @property
    def _has_size(self) -> bool:
        """Whether rigs say how large the model is, which adjustments with positions change."""
        return self.database.rigs is not None

    def _align(self, model: colmap.Reconstruction) -> dict[str, Any]:
        assert self.gps is not None
        return align_with_gps(model, self.context.dataset, self.gps, self.context.seed)

    def _pixel_scale(self) -> float:
        """Pixels of the photos, in the median, that a pixel of the extractor's input is wide."""
        if self.config.pixels == "photo":
            return 1.0
        cameras = self.database.cameras
        return float(np.median([cameras.input_scale(name) for name in cameras.sizes]))

    def _constant_cameras(self) -> set[int]:
        assigned = self.database.cameras.assignment
        if self.config.refine_intrinsics is None:
            return assigned.known
        return set() if self.config.refine_intrinsics else set(assigned.cameras)

    def _commit(self, models: list[colmap.Reconstruction]) -> None:
        workspace = self.context.workspace
        remove(workspace.gps)
        if self.gps is not None:
            write_gps(workspace, self.gps, [self._align(model) for model in models])
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
        gps = read_gps(self.workspace) if self.gps is not None else None
        if gps is not None:
            figures |= gps_figures(gps["models"][0])
        if self.reference is not None:
            known = colmap.model_poses(colmap.read_model(self.reference))
            unused = set(known) - set(poses) - dataset.query_names
            figures["reference_without_photo"] = sorted(unused)
        return figures
