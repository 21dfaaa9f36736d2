"""Map: verified matches -> sparse/ (and sparse_1/ ... where the photos make several models)."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from reconstruct import colmap
from reconstruct.atomic import TEMPORARY, atomic_path, remove
from reconstruct.datasets.gps import GpsPositions
from reconstruct.errors import ConfigError, EstimationError
from reconstruct.fingerprints import fingerprint, tree_hash
from reconstruct.parallel import cores
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
from reconstruct.stages.growing import (
    Growth,
    open_snapshots,
    read_growth,
    start_folder,
    start_identity,
)
from reconstruct.stages.map_settings import MapConfig
from reconstruct.stages.map_uncertainty import uncertainty_figures, write_model_uncertainty
from reconstruct.stages.second_pass import pairs_to_align, second_pass
from reconstruct.stages.upright import gravity_identity, read_gravity, turn_upright
from reconstruct.stages.whole import WholeStage

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ModelLoader:
    """The points and the cameras of a model, for any process that sees its folder."""

    folder: Path
    unreadable: ClassVar[Mapping[str, str]] = {}

    def __call__(self) -> tuple[colmap.Tracks, dict[str, colmap.Camera]]:
        """The points that the keypoints of the model's images see, and its cameras."""
        model = colmap.read_model(self.folder)
        return colmap.Tracks(model), colmap.model_cameras(model)


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
        self._growth: Growth | None = None
        self._start = start_folder(config.start, context.workspace)
        if config.refine_rigs and (database.rigs is None or not database.rigs.has_size):
            raise ConfigError(
                "map.refine_rigs: needs dataset.rigs with the poses of all cameras, at a distance "
                "from each other; leave it out"
            )
        if config.upright is not None and context.dataset.gps is not None:
            raise ConfigError("map.upright: dataset.gps says where up is; leave one of them out")
        upright = config.upright
        self._gravity = None if upright is None else read_gravity(upright, context.dataset)
        if self._start is not None and database.rigs is not None:
            raise ConfigError("map.start: a model cannot grow with dataset.rigs; leave one out")

    def find_fingerprint(self) -> str | None:
        """Fingerprint over settings, the reference's content, and the database."""
        before = self.database.fingerprint()
        if before is None:
            return None
        reference = self.reference and tree_hash(self.reference)
        more = [self._unknown_rigs.content] if self._unknown_rigs is not None else []
        if self._gravity is not None:
            more.append(gravity_identity(self._gravity))
        start = start_identity(self.config.start, self._start, self.workspace)
        settings = self.config.identity()
        return fingerprint("map", settings, reference, start, self.context.seed, before, *more)

    @property
    def _unknown_rigs(self) -> colmap.Rigs | None:
        """Rigs whose poses are to be estimated."""
        rigs = self.context.dataset.rigs
        return rigs if self.reference is None and rigs and not rigs.calibrated else None

    @property
    def gps(self) -> GpsPositions | None:
        """Positions that the models are aligned with; a reference, or a model that grows, stays
        where it is."""
        stays = self.reference is not None or self._start is not None
        return None if stays else self.context.dataset.gps

    def loader(self, extract: Extract) -> ModelLoader:
        """Loads the largest model's cameras, and the points that its images' keypoints see."""
        return ModelLoader(self.context.workspace.sparse)

    def make(self) -> None:
        """Write the models. Raises EstimationError if there is none."""
        models = self._models()
        self.workspace.renew_stamp(self.database.artifact)  # COLMAP's mapper touches it
        self._commit(models)

    def _models(self) -> list[colmap.Reconstruction]:
        scratch = self.workspace.root / f"mapping{TEMPORARY}"
        try:
            if self.reference is not None:
                return [self._triangulated(scratch)]
            models = self._mapped(scratch)
        finally:
            remove(scratch)
        models = [self._founded(self._adjusted(model)) for model in models]
        grown = 0 if self._growth is None else 1
        models = models[:grown] + sorted(models[grown:], key=lambda m: -m.num_reg_images())
        if not models or not models[0].num_reg_images():
            raise EstimationError(
                f"{self._method()} mapping found no model: no two photos have enough verified "
                "matches and parallax to start from (see the figures of verify)"
            )
        if self._growth is not None:
            colmap.return_to(models[0], self._growth.source, exactly=self.config.fixed)
        elif self.config.upright is not None:
            for model in models:
                turn_upright(model, self.context.dataset, self._gravity)
        return models

    def _mapper(self) -> colmap.MapperOptions:
        return colmap.MapperOptions(
            seed=self.context.seed,
            threads=self._threads,
            options=self.config.options,
            pixel_scale=self._pixel_scale(),
        )

    def _triangulated(self, scratch: Path) -> colmap.Reconstruction:
        assert self.reference is not None
        poses = colmap.read_model(self.reference)
        database, images = self.database.artifact, self.context.dataset.root
        return colmap.triangulate(database, images, scratch, poses, self._mapper())

    def _mapped(self, scratch: Path) -> list[colmap.Reconstruction]:
        database = self.database.artifact
        if self._start is not None:
            self._growth = read_growth(
                self._start,
                database,
                self.config.fixed,
                images=self.context.dataset.root,
                scratch=scratch,
                mapper=self._mapper(),
            )
        models = self._mapped_from(database, scratch)
        if models and self._unknown_rigs is not None:
            with_rigs = scratch / "database.db"
            shutil.copyfile(database, with_rigs)
            self._unknown_rigs.apply(with_rigs, models[0])
            models = self._mapped_from(with_rigs, scratch)
        return models

    def _mapped_from(self, database: Path, scratch: Path) -> list[colmap.Reconstruction]:
        dataset = self.context.dataset
        total = len(dataset.names) - len(dataset.queries)
        with self.context.reporter.task(self.name, total, "images") as advance:
            return colmap.map_images(
                self._method(),
                database,
                dataset.root,
                scratch,
                self._mapper(),
                constant_cameras=self._constant_cameras(),
                min_model_size=self.config.min_model_size,
                start=None if self._growth is None else self._growth.placed,
                fixed=self.config.fixed,
                snapshots=self._snapshots(total),
                prior_positions=self._grows_with_positions,
                constant_rigs=self.database.rigs is not None,
                registered=advance,
            )

    def _method(self) -> str:
        """The method, `auto` decided."""
        if self.config.method != "auto":
            return self.config.method
        cameras = self.database.cameras
        constant = self._constant_cameras()
        some = 0 < len(constant) < len(cameras.assignment.cameras)  # which `global` cannot have
        few = len(cameras.sizes) < self.config.auto_images
        return "incremental" if few or some or self._start is not None else "global"

    def _snapshots(self, images: int) -> colmap.Snapshots | None:
        # COLMAP takes all images of a snapshot for those it started with, and would fix them too.
        if self._method() != "incremental" or self.config.fixed or self._unknown_rigs is not None:
            return None  # with unknown rigs it maps twice, from different databases
        source = self._start and tree_hash(self._start)
        made_from = [self.fingerprint(), source]
        return open_snapshots(self.workspace, made_from, images, self.config.snapshot_images)

    def _adjusted(self, model: colmap.Reconstruction) -> colmap.Reconstruction:
        self._adjust(model)
        settings = self.config.second_pass
        if (
            settings is None
            or not self.database.verified.refined
            or self.config.robust_loss_px is None
        ):
            return model
        pairs = len(pairs_to_align(model, settings))
        with self.context.reporter.task("second pass", pairs, "pairs") as advance:
            again = second_pass(
                model,
                self.database.verify.extract.photos().read,
                settings,
                self.context.device,
                advance,
            )
        self._adjust(again)
        return again

    def _founded(self, model: colmap.Reconstruction) -> colmap.Reconstruction:
        kept = [] if self._growth is None else self._growth.constant
        for name in colmap.drop_unfounded_images(model, kept):
            logger.warning("map: %s has too few points to be sure of, and is left out", name)
        return model

    def _adjust(self, model: colmap.Reconstruction) -> None:
        loss_px = self.config.robust_loss_px
        if loss_px is not None:
            colmap.adjust_robustly(
                model,
                loss_px,
                self._constant_cameras(),
                self._threads,
                self._pixel_scale(),
                constant_poses=() if self._growth is None else self._growth.constant,
                positions=self._positions(model),
                constant_rigs=self.database.rigs is not None,
                refine_rigs=self.config.refine_rigs,
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
        """Whether rigs determine the size of the model, which adjustments with positions would
        change."""
        return self.database.rigs is not None and self.database.rigs.has_size

    def _align(self, model: colmap.Reconstruction) -> dict[str, Any]:
        assert self.gps is not None
        return align_with_gps(model, self.context.dataset, self.gps, self.context.seed)

    @property
    def _threads(self) -> int:
        return min(self.config.threads, cores())  # COLMAP would start any number

    def _pixel_scale(self) -> float:
        """Factor for limits in pixels: the median over the photos."""
        if self.config.pixels == "photo":
            return 1.0
        names = self.database.cameras.sizes
        return float(np.median([self.database.verified.pixel_scale(name) for name in names]))

    def _constant_cameras(self) -> set[int]:
        assigned = self.database.cameras.assignment
        grown = set() if self._growth is None else self._growth.constant_cameras
        if self.config.refine_intrinsics is None:
            return assigned.known | grown
        return grown if self.config.refine_intrinsics else set(assigned.cameras)

    def _commit(self, models: list[colmap.Reconstruction]) -> None:
        workspace = self.context.workspace
        remove(workspace.gps)
        if self.gps is not None:
            write_gps(workspace, self.gps, [self._align(model) for model in models])
        for i, model in enumerate(models):
            path = workspace.sparse if i == 0 else workspace.root / f"sparse_{i}"
            if i > 0:
                workspace.set_stamp(path, None)
            with atomic_path(path, keep_old=i == 0) as temporary:
                colmap.write_model(model, temporary)
                self._write_uncertainty(model, temporary)
        workspace.forget_models(len(models))
        remove(workspace.snapshots)

    def _write_uncertainty(self, model: colmap.Reconstruction, folder: Path) -> None:
        """Beside a model whose poses nothing but its photos has determined."""
        given = self.reference is not None or self.config.fixed or self.database.rigs is not None
        if not given:
            loss_px = self.config.robust_loss_px
            if loss_px == "auto":
                loss_px = colmap.efficient_loss_px(model)
            elif loss_px is not None:
                loss_px *= self._pixel_scale()
            adjusted = set(model.cameras) - self._constant_cameras()
            write_model_uncertainty(model, folder, loss_px, adjusted)

    def figures(self) -> dict[str, Any]:
        """Figures of the models, and which photos are in none."""
        models = [colmap.read_model(path) for path in self.workspace.models()]
        figures: dict[str, Any] = {"models": len(models)}
        if self.config.method == "auto":
            figures["method"] = self._method()
        figures |= colmap.model_summary(models[0])
        figures |= uncertainty_figures(models[0], self.artifact)
        dataset = self.context.dataset
        names = set(dataset.names) - dataset.query_names - set(self.context.summary.skipped)
        poses: Mapping[str, Any] = colmap.model_poses(models[0])
        figures["of_images"] = len(dataset.names) - len(dataset.queries)
        if self._growth is not None:
            figures |= self._growth.figures(models[0])
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
