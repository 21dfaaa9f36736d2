"""The only import of pycolmap: cameras, models, database, mapping, single images and pairs, SIFT.

pycolmap changes its API with every release; the differences are dealt with here. Poses are
``cam_from_world``; keypoints are COLMAP pixels, as in the whole package. Other modules import this
package, not its files.
"""

from __future__ import annotations

from reconstruct.stopping import keeping_sigterm

with keeping_sigterm():
    # Before pycolmap, whose libraries would otherwise provide symbols that numpy and Pillow look
    # for: the first PNG that is written then ends Python with "free(): invalid pointer" (pycolmap
    # 4.2.1, numpy 2.4, Linux).
    import numpy  # noqa: F401
    import PIL.Image  # noqa: F401
    import pycolmap

if tuple(map(int, pycolmap.__version__.split(".")[:2])) < (4, 2):
    raise ImportError(
        f"reconstruct needs pycolmap >= 4.2, < 5 and found {pycolmap.__version__}: "
        "pip install 'pycolmap>=4.2,<5'"
    )

from reconstruct.colmap.adjustment import (
    adjust_robustly,
    drop_unfounded_images,
    efficient_loss_px,
)
from reconstruct.colmap.arrays import (
    ModelArrays,
    model_arrays,
)
from reconstruct.colmap.cameras import (
    Camera,
    CameraAssignment,
    assign_cameras,
    camera_models,
    check_intrinsics,
    guess_camera,
    intrinsics,
    is_camera_model,
    lacks_focal_length,
    make_camera,
    opencv_intrinsics,
    pinhole_matrix,
)
from reconstruct.colmap.database import (
    VerifiedPair,
    database_cameras,
    database_keypoint_counts,
    database_keypoints,
    database_pairs,
    verified_counts,
    verified_matches,
    write_database,
)
from reconstruct.colmap.derivatives import intrinsics_derivatives, point_derivatives
from reconstruct.colmap.estimation import (
    estimate_pose,
    project,
)
from reconstruct.colmap.gps import (
    Prior,
    east_north_up,
    geodetic,
    transform_model,
)
from reconstruct.colmap.incremental import (
    Snapshots,
)
from reconstruct.colmap.joining import (
    CameraKey,
    Overlap,
    camera_key,
    camera_keys,
    equal_cameras,
    find_overlap,
    merge_models,
)
from reconstruct.colmap.linking import (
    LinkedOverlap,
    Links,
    find_linked_overlap,
)
from reconstruct.colmap.mapping import (
    MapperOptions,
    check_options,
    incremental_options,
    map_images,
    merge_options,
)
from reconstruct.colmap.models import (
    Reconstruction,
    build_model,
    check_model,
    model_cameras,
    model_folder,
    model_points,
    model_poses,
    model_summary,
    observations,
    points_by_id,
    read_model,
    with_observations,
    write_model,
    write_points,
    write_text_model,
)
from reconstruct.colmap.placing import (
    PlacedModel,
    place_on_database,
    return_to,
)
from reconstruct.colmap.rig_pose import estimate_rig_pose
from reconstruct.colmap.rigs import (
    Rigs,
    has_rigs,
    rig_ids,
)
from reconstruct.colmap.robust_loss import cauchy
from reconstruct.colmap.sift import (
    SiftExtractor,
)
from reconstruct.colmap.tracks import (
    Tracks,
)
from reconstruct.colmap.triangulation import (
    triangulate,
    triangulate_again,
)
from reconstruct.colmap.two_view import (
    TwoViewOptions,
    estimate_two_view_geometry,
    geometry_from_poses,
    pair_seed,
)
from reconstruct.colmap.undistortion import (
    undistort,
)


def set_verbosity(verbose: bool) -> None:
    """Let all of COLMAP's log through to stderr, or only its errors."""
    pycolmap.logging.minloglevel = 0 if verbose else 2


__all__ = [
    "Camera",
    "CameraAssignment",
    "CameraKey",
    "LinkedOverlap",
    "Links",
    "MapperOptions",
    "ModelArrays",
    "Overlap",
    "PlacedModel",
    "Prior",
    "Reconstruction",
    "Rigs",
    "SiftExtractor",
    "Snapshots",
    "Tracks",
    "TwoViewOptions",
    "VerifiedPair",
    "adjust_robustly",
    "assign_cameras",
    "build_model",
    "camera_key",
    "camera_keys",
    "camera_models",
    "cauchy",
    "check_intrinsics",
    "check_model",
    "check_options",
    "database_cameras",
    "database_keypoint_counts",
    "database_keypoints",
    "database_pairs",
    "drop_unfounded_images",
    "east_north_up",
    "efficient_loss_px",
    "equal_cameras",
    "estimate_pose",
    "estimate_rig_pose",
    "estimate_two_view_geometry",
    "find_linked_overlap",
    "find_overlap",
    "geodetic",
    "geometry_from_poses",
    "guess_camera",
    "has_rigs",
    "incremental_options",
    "intrinsics",
    "intrinsics_derivatives",
    "is_camera_model",
    "lacks_focal_length",
    "make_camera",
    "map_images",
    "merge_models",
    "merge_options",
    "model_arrays",
    "model_cameras",
    "model_folder",
    "model_points",
    "model_poses",
    "model_summary",
    "observations",
    "opencv_intrinsics",
    "pair_seed",
    "pinhole_matrix",
    "place_on_database",
    "point_derivatives",
    "points_by_id",
    "project",
    "read_model",
    "return_to",
    "rig_ids",
    "set_verbosity",
    "transform_model",
    "triangulate",
    "triangulate_again",
    "undistort",
    "verified_counts",
    "verified_matches",
    "with_observations",
    "write_database",
    "write_model",
    "write_points",
    "write_text_model",
]
