"""SIFT as COLMAP extracts it."""

from __future__ import annotations

import numpy as np
import pycolmap
from numpy.typing import NDArray

from reconstruct.types import ImageArray


class SiftExtractor:
    """COLMAP's SIFT with RootSIFT descriptors."""

    def __init__(self, *, max_keypoints: int, upright: bool, affine_shape: bool) -> None:
        options = pycolmap.FeatureExtractionOptions()
        options.use_gpu = False
        options.num_threads = 1
        options.sift.max_num_features = max_keypoints
        options.sift.upright = upright
        options.sift.estimate_affine_shape = affine_shape
        options.sift.normalization = pycolmap.Normalization.L1_ROOT
        self._extractor = pycolmap.FeatureExtractor.create(options, pycolmap.Device.cpu)

    def __call__(self, grey: ImageArray) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Keypoints and descriptors of an (H, W) uint8 grey image.

        Returns:
            (N, 4) keypoints (x and y in COLMAP pixels, scale, orientation) and (N, 128) unit
                vectors.
        """
        keypoints, descriptors = self._extractor.extract_from_uint8_array(grey)
        matrix = np.asarray(pycolmap.keypoints_to_matrix(keypoints), np.float32).reshape(-1, 4)
        values = np.asarray(descriptors.data, np.float32).reshape(-1, 128)
        norms = np.linalg.norm(values, axis=1, keepdims=True)
        return matrix, values / np.maximum(norms, 1e-12)
