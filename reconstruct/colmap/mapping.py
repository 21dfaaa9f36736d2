"""From a database to models: mapping, and COLMAP's options for it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pycolmap

from reconstruct.colmap.database import opened
from reconstruct.colmap.incremental import Snapshots, map_incrementally
from reconstruct.colmap.models import Reconstruction, write_model
from reconstruct.colmap.rigs import rig_ids
from reconstruct.config import shown
from reconstruct.errors import UsageError


@dataclass(frozen=True, slots=True, kw_only=True)
class MapperOptions:
    """What mapping and triangulation have in common.

    Attributes:
        seed: Seed of RANSAC.
        threads: Number of threads; -1: all cores.
        options: Further values for COLMAP's options, by their (nested) names.
        pixel_scale: Factor for COLMAP's own thresholds in pixels.
    """

    seed: int
    threads: int
    options: Mapping[str, Any] = field(default_factory=dict)
    pixel_scale: float = 1.0


def map_images(
    method: str,
    database: Path,
    images: Path,
    scratch: Path,
    mapper: MapperOptions,
    *,
    constant_cameras: set[int],
    min_model_size: int,
    start: Reconstruction | None = None,
    fixed: bool = False,
    snapshots: Snapshots | None = None,
    prior_positions: bool = False,
    constant_rigs: bool = False,
    registered: Callable[[], None] = lambda: None,
) -> list[Reconstruction]:
    """Structure from motion: the models, the largest first; one that grew from ``start`` comes
    before all.

    Args:
        method: ``incremental``, ``global`` or ``hierarchical``.
        database: COLMAP database with verified matches.
        images: Folder to which the image names are relative.
        scratch: Folder for temporary files.
        mapper: Seed, threads, and options of COLMAP.
        constant_cameras: Ids of cameras whose intrinsics stay as they are.
        min_model_size: Smallest number of images of a model.
        start: Model to grow from, with the database's ids (`place_on_database`); incremental only.
            The result has drifted from its coordinate frame: bring it back by `return_to`.
        fixed: Poses and intrinsics of ``start`` stay as they are, up to a similarity.
        snapshots: Where incremental mapping keeps what it has, and goes on from.
        prior_positions: Whether adjustments keep to the database's positions of cameras, under a
            robust loss; global mapping does not.
        constant_rigs: Whether the poses of cameras in their rigs stay as they are.
        registered: Called for every image that incremental mapping adds.

    Raises:
        EstimationError: COLMAP fails.
        UsageError: An option is unknown.
        OSError: The database cannot be opened, or the disk is full.
    """
    pycolmap.set_random_seed(mapper.seed)
    scratch.mkdir(parents=True, exist_ok=True)
    with opened(database):  # COLMAP's mapper does not say what it could not open
        pass
    if method == "global":
        together = _global_options(
            database, constant_cameras, min_model_size, mapper, constant_rigs
        )
        found = pycolmap.global_mapping(database, images, scratch, together)
        return _largest_first(found.values())
    if fixed and start is not None:
        constant_cameras = constant_cameras | set(start.cameras)
    incremental = incremental_options(constant_cameras, min_model_size, mapper.seed, mapper.threads)
    if constant_rigs:
        incremental.constant_rigs = rig_ids(database)
    incremental.use_prior_position = prior_positions
    incremental.use_robust_loss_on_prior_position = prior_positions
    merge_options(incremental, pixel_options(mapper.pixel_scale))
    if method == "hierarchical":
        hierarchical = _hierarchical_options(incremental, mapper)
        found = pycolmap.hierarchical_mapping(database, images, scratch, hierarchical)
        return _largest_first(found.values())
    merge_options(incremental, mapper.options)
    incremental.fix_existing_frames = fixed
    folder = None
    if start is not None:
        folder = scratch / "start"
        write_model(start, folder)
    models = map_incrementally(
        database,
        images,
        scratch,
        incremental,
        start=folder,
        snapshots=snapshots,
        registered=registered,
    )
    kept = 0 if start is None else 1
    return models[:kept] + _largest_first(models[kept:])


def _largest_first(models: Iterable[Reconstruction]) -> list[Reconstruction]:
    return sorted(models, key=lambda m: (-m.num_reg_images(), -m.num_points3D()))


def pixel_options(scale: float) -> dict[str, dict[str, float]]:
    """COLMAP's thresholds in pixels for incremental mapping, times ``scale``.

    COLMAP's values suit keypoints that were found in photos as they are stored; an error of one
    pixel in a photo that was shrunk for the extractor is several in the photo. (Global mapping has
    its thresholds as angles.)
    """
    defaults = pycolmap.IncrementalPipelineOptions()
    names = {
        "mapper": ("init_max_error", "abs_pose_max_error", "filter_max_reproj_error"),
        "triangulation": ("complete_max_reproj_error", "merge_max_reproj_error"),
    }
    return {
        part: {name: scale * getattr(getattr(defaults, part), name) for name in thresholds}
        for part, thresholds in names.items()
    }


def incremental_options(
    constant_cameras: set[int], min_model_size: int, seed: int, threads: int
) -> pycolmap.IncrementalPipelineOptions:
    """COLMAP's options for incremental mapping, with the values that this package decides.

    Args:
        constant_cameras: Ids of cameras whose intrinsics stay as they are.
        min_model_size: Smallest number of images of a model.
        seed: Seed of RANSAC.
        threads: Number of threads.
    """
    options = pycolmap.IncrementalPipelineOptions()
    options.min_model_size = min_model_size
    options.constant_cameras = constant_cameras
    options.random_seed = seed
    options.num_threads = threads
    return options


def _hierarchical_options(
    incremental: pycolmap.IncrementalPipelineOptions, mapper: MapperOptions
) -> pycolmap.HierarchicalPipelineOptions:
    options = pycolmap.HierarchicalPipelineOptions()
    options.num_threads = mapper.threads
    options.incremental_options = incremental
    merge_options(options, mapper.options)
    return options


def _global_options(
    database: Path,
    constant_cameras: set[int],
    min_model_size: int,
    mapper: MapperOptions,
    constant_rigs: bool,
) -> pycolmap.GlobalPipelineOptions:
    options = pycolmap.GlobalPipelineOptions()
    options.min_model_size = min_model_size
    options.random_seed = mapper.seed
    options.num_threads = mapper.threads
    if constant_cameras:
        with opened(database) as contents:
            if len(constant_cameras) < contents.num_cameras():
                raise UsageError(
                    "map.method: global cannot keep some cameras fixed and refine others; give "
                    "the intrinsics of all images, or use method: incremental"
                )
        options.mapper.bundle_adjustment.refine_focal_length = False
        options.mapper.bundle_adjustment.refine_extra_params = False
    if constant_rigs:
        options.mapper.refine_sensor_from_rig = False
        options.mapper.bundle_adjustment.refine_sensor_from_rig = False
    merge_options(options, mapper.options)
    return options


MAX_THREADS = 64
"""In COLMAP's options by their own names, where it starts as many as it is told."""


def check_options(method: str, values: Mapping[str, Any]) -> None:
    """Raise UsageError if COLMAP's options for a mapping method do not take ``values``."""
    kinds = {
        "global": pycolmap.GlobalPipelineOptions,
        "hierarchical": pycolmap.HierarchicalPipelineOptions,
    }
    options = kinds.get(method, pycolmap.IncrementalPipelineOptions)()
    merge_options(options, values)
    if hasattr(options, "check") and not options.check():  # COLMAP's own message is on stderr
        raise UsageError(f"map.options: COLMAP refuses these values: {shown(dict(values))}")


def merge_options(target: Any, values: Mapping[str, Any]) -> None:
    """Set nested COLMAP options by name. Raises UsageError naming what COLMAP rejects."""
    for name, value in values.items():
        if not isinstance(name, str) or not hasattr(target, name):
            raise UsageError(f"options: {type(target).__name__} has no option {shown(name)}")
        if isinstance(value, Mapping):
            merge_options(getattr(target, name), value)
            continue
        if name == "num_threads" and isinstance(value, int) and value > MAX_THREADS:
            raise UsageError(
                f"options: {name} is {shown(value)}; set map.threads, or {MAX_THREADS}"
            )
        try:
            setattr(target, name, value)
        except (AttributeError, OverflowError, TypeError, ValueError) as error:
            raise UsageError(f"options: {name} does not take {shown(value)}") from error
