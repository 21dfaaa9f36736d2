"""D2-Net's hard detection and pyramid as the formulas say it: slow, whole 512-channel maps.

The oracle of the fast version, written from the method's description (see the docstrings of
`reconstruct.features.detection` and `alignment`), release's coordinates. Numpy, except for the
two interpolations that the release leaves to torch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional as F

Array = NDArray[Any]


def shifted(maps: Array, di: int, dj: int, outside: float) -> Array:
    """maps[..., i + di, j + dj], ``outside`` beyond the border."""
    padded = np.pad(maps, ((0, 0), (1, 1), (1, 1)), constant_values=outside)
    height, width = maps.shape[1:]
    return padded[:, 1 + di : 1 + di + height, 1 + dj : 1 + dj + width]


def derivatives(maps: Array) -> tuple[Array, Array, Array, Array, Array]:
    """di, dj, dii, djj, dij of every channel, zero padding."""

    def at(di: int, dj: int) -> Array:
        return shifted(maps, di, dj, 0.0)

    dii = at(1, 0) - 2 * maps + at(-1, 0)
    djj = at(0, 1) - 2 * maps + at(0, -1)
    dij = (at(1, 1) - at(1, -1) - at(-1, 1) + at(-1, -1)) / 4
    return (at(1, 0) - at(-1, 0)) / 2, (at(0, 1) - at(0, -1)) / 2, dii, djj, dij


def literal_detections(maps: Array) -> Array:
    """(C, h, w) -> bool of the same shape."""
    is_channel_max = maps == maps.max(axis=0)
    is_local_max = np.ones(maps.shape, bool)
    for di in (-1, 0, 1):
        for dj in (-1, 0, 1):
            is_local_max &= maps >= shifted(maps, di, dj, -np.inf)
    _, _, dii, djj, dij = derivatives(maps)
    det = dii * djj - dij**2
    with np.errstate(divide="ignore", invalid="ignore"):
        is_blob = (det > 0) & ((dii + djj) ** 2 / det <= (5 + 1) ** 2 / 5)
    return np.asarray(is_channel_max & is_local_max & is_blob)


def literal_points(maps: Array, detected: Array) -> tuple[Array, Array, Array]:
    """Positions (N, 2) row and column in cells, scores (N,), descriptors (N, C)."""
    di, dj, dii, djj, dij = derivatives(maps)
    height, width = maps.shape[1:]
    points = []
    for k, i, j in np.argwhere(detected):
        hessian = np.array([[dii[k, i, j], dij[k, i, j]], [dij[k, i, j], djj[k, i, j]]])
        step = -np.linalg.inv(hessian) @ np.array([di[k, i, j], dj[k, i, j]])
        if not (abs(step) < 0.5).all():
            continue
        y, x = np.array([i, j]) + step
        top, left = int(np.floor(y)), int(np.floor(x))
        bottom, right = int(np.ceil(y)), int(np.ceil(x))
        if top < 0 or left < 0 or bottom >= height or right >= width:
            continue
        a, b = y - top, x - left
        descriptor = (
            (1 - a) * (1 - b) * maps[:, top, left]
            + (1 - a) * b * maps[:, top, right]
            + a * (1 - b) * maps[:, bottom, left]
            + a * b * maps[:, bottom, right]
        )
        points.append((y, x, maps[k, i, j], descriptor / np.linalg.norm(descriptor)))
    if not points:
        return np.zeros((0, 2)), np.zeros(0), np.zeros((0, len(maps)))
    positions = np.array([(y, x) for y, x, _, _ in points])
    return positions, np.array([p[2] for p in points]), np.stack([p[3] for p in points])


def literal_release(
    image: torch.Tensor, network: Callable[[torch.Tensor], torch.Tensor], scales: Sequence[float]
) -> tuple[Array, Array, Array, Array]:
    """Keypoints (N, 2) x, y counted from the first pixel's centre, scales, scores, descriptors.

    image: (1, 3, H, W) normalised; ``network`` gives (1, C, h, w).
    """
    height, width = image.shape[2:]
    parts: list[tuple[Array, Array, Array, Array]] = []
    maps = banned = None
    for level, scale in enumerate(scales):
        resized = image
        if scale != 1:
            size = (int(height * scale), int(width * scale))
            resized = F.interpolate(image, size, mode="bilinear", align_corners=True)
        current = network(resized).clone()
        shape = list(current.shape[2:])
        detected_before = np.zeros(shape, bool)
        if maps is not None and banned is not None:
            current += F.interpolate(maps, shape, mode="bilinear", align_corners=True)
            before = torch.from_numpy(banned)[None, None].float()
            detected_before = F.interpolate(before, shape)[0, 0].numpy() > 0
        maps = current
        values = maps[0].numpy().astype(np.float64)
        detected = literal_detections(values) & ~detected_before
        banned = detected_before | detected.any(axis=0)
        positions, scores, descriptors = literal_points(values, detected)
        ratio = np.array([height / resized.shape[2], width / resized.shape[3]])
        keypoints = ((4 * positions + 1.5) * ratio)[:, ::-1]
        sizes = np.full(len(scores), 1 / scale)
        parts.append((keypoints, sizes, scores / (level + 1), descriptors))
    joined = [np.concatenate([part[k] for part in parts]) for k in range(4)]
    return joined[0], joined[1], joined[2], joined[3]
