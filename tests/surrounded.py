"""A made-up model whose truth is known."""

from __future__ import annotations

import pycolmap

from reconstruct import colmap


def surrounded(camera_model: str, params: list[float]) -> colmap.Reconstruction:
    """Ten images of one camera around 200 points, of which each sees most."""
    pycolmap.set_random_seed(0)
    options = pycolmap.SyntheticDatasetOptions()
    options.num_rigs = options.num_cameras_per_rig = 1
    options.num_frames_per_rig = 10
    options.num_points3D = 200
    options.num_points2D_without_point3D = 0
    options.camera_model_id = getattr(pycolmap.CameraModelId, camera_model)
    options.camera_params = params
    return pycolmap.synthesize_dataset(options)
