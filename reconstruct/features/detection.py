"""Hard detection on one feature map: which cells, where between the cells, and their descriptors.

A cell (i, j) is detected in channel k if F_ijk is the largest of all channels there and the largest
of its 3x3 neighbourhood in channel k, and if the Hessian in channel k indicates a blob and not an
edge (Dusmanu et al., CVPR 2019, sections 3.1 and 4.3). Only a channel that attains the maximum of
its cell can pass, so the 3x3 neighbourhoods of those are gathered and the other 511 channels are
never differentiated.

Maps are (C, h, w) tensors on any device and in any memory layout; positions are (row, column) in
cells, with 0 at the centre of the first cell.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor
from torch.nn import functional as F

EDGE_RATIO: Final = 5.0
"""A larger ratio of principal curvatures indicates an edge (Lowe, IJCV 2004, section 4.1)."""

MAX_STEP: Final = 0.5
"""A sub-pixel step of this length, in cells, leaves the cell: the keypoint is dropped."""


@dataclass(frozen=True, slots=True, eq=False)
class Detections:
    """N detected cells.

    Attributes:
        channels: (N,) int64.
        rows: (N,) int64.
        columns: (N,) int64.
        patches: (N, 3, 3) float32, the neighbourhood in that channel, zero outside of the map.
    """

    channels: Tensor
    rows: Tensor
    columns: Tensor
    patches: Tensor

    def __len__(self) -> int:
        return len(self.rows)

    def select(self, index: Tensor) -> Detections:
        """The detections at ``index`` (a boolean mask or integer positions), in that order."""
        return Detections(
            self.channels[index], self.rows[index], self.columns[index], self.patches[index]
        )


def detect(features: Tensor) -> Detections:
    """The detections of a (C, h, w) map, ordered by row, column, channel.

    Channels that tie for the maximum of a cell are all candidates, as are neighbours that tie.
    """
    channels, rows, columns = _channel_maxima(features)
    patches, inside = _neighbourhoods(features, channels, rows, columns)
    is_local_max = (patches[:, 1:2, 1:2] >= patches).logical_or(~inside).flatten(1).all(1)
    detections = Detections(channels, rows, columns, patches).select(is_local_max)
    detections = detections.select(~_is_edge(detections.patches))
    depth, _, width = features.shape
    order = (detections.rows * width + detections.columns) * depth + detections.channels
    return detections.select(order.argsort())


def _channel_maxima(features: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Channel, row and column of every entry that attains the maximum of its cell."""
    maxima = features.amax(0)
    if features.amin() >= 0:
        # After a ReLU dead cells are zero in all channels. They cannot be detected (a zero that
        # is a local maximum of non-negative values has a zero Hessian), but would all be ties.
        maxima = maxima.masked_fill(maxima == 0, torch.nan)
    if features.stride(0) == 1:  # channels last: search along memory
        rows, columns, channels = (features == maxima).permute(1, 2, 0).nonzero().unbind(1)
    else:
        channels, rows, columns = (features == maxima).nonzero().unbind(1)
    return channels, rows, columns


def _neighbourhoods(
    features: Tensor, channels: Tensor, rows: Tensor, columns: Tensor
) -> tuple[Tensor, Tensor]:
    """(N, 3, 3) values, zero outside of the map as in a zero-padded convolution, and (N, 3, 3)
    bool, True inside of the map."""
    _, height, width = features.shape
    offsets = torch.arange(-1, 2, device=features.device)
    i = rows[:, None, None] + offsets[:, None]
    j = columns[:, None, None] + offsets
    inside = (i >= 0) & (i < height) & (j >= 0) & (j < width)
    k = channels[:, None, None]
    values = features[k, i.clamp(0, height - 1), j.clamp(0, width - 1)].float()
    return values.masked_fill(~inside, 0.0), inside


def _hessian(patches: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(N,) second derivatives along rows, along columns, and mixed, by finite differences."""
    p = patches
    dii = p[:, 0, 1] - 2 * p[:, 1, 1] + p[:, 2, 1]
    djj = p[:, 1, 0] - 2 * p[:, 1, 1] + p[:, 1, 2]
    dij = 0.25 * (p[:, 0, 0] - p[:, 0, 2] - p[:, 2, 0] + p[:, 2, 2])
    return dii, djj, dij


def _is_edge(patches: Tensor) -> Tensor:
    """(N,) bool: not a blob, or one principal curvature is more than `EDGE_RATIO` times the
    other."""
    dii, djj, dij = _hessian(patches)
    determinant = dii * djj - dij * dij
    threshold = (EDGE_RATIO + 1) ** 2 / EDGE_RATIO
    is_blob = (determinant > 0) & ((dii + djj) ** 2 / determinant <= threshold)
    return ~is_blob


def newton_step(patches: Tensor) -> Tensor:
    """(N, 2) step (row, column) in cells to the extremum of a parabola through (N, 3, 3)
    patches."""
    dii, djj, dij = _hessian(patches)
    determinant = dii * djj - dij * dij
    di = 0.5 * (patches[:, 2, 1] - patches[:, 0, 1])
    dj = 0.5 * (patches[:, 1, 2] - patches[:, 1, 0])
    step_i = (dij * dj - djj * di) / determinant
    step_j = (dij * di - dii * dj) / determinant
    return torch.stack([step_i, step_j], 1)


@dataclass(frozen=True, slots=True, eq=False)
class Localized:
    """N keypoints between the cells.

    Attributes:
        positions: (N, 2) float32 (row, column) in cells.
        scores: (N,) value at the integer cell.
        descriptors: (N, C) float32 of unit length.
    """

    positions: Tensor
    scores: Tensor
    descriptors: Tensor


def localize(features: Tensor, detections: Detections) -> Localized:
    """Refine detections by one Newton step and sample their descriptors.

    Keypoints are dropped if their step reaches `MAX_STEP` along an axis, or if bilinear
    interpolation would need a cell outside of the map.
    """
    step = newton_step(detections.patches)
    cells = torch.stack([detections.rows, detections.columns], 1)
    positions = cells + step
    _, height, width = features.shape
    last = torch.tensor([height - 1, width - 1], device=features.device)
    # Steps of NaN fail the first comparison.
    kept = (step.abs() < MAX_STEP).all(1)
    kept &= ((positions.floor() >= 0) & (positions.ceil() <= last)).all(1)
    positions = positions[kept]
    scores = detections.patches[kept, 1, 1]
    return Localized(positions, scores, F.normalize(_sample(features, positions), dim=1))


def _sample(features: Tensor, positions: Tensor) -> Tensor:
    """(N, C) float32: bilinear interpolation of all channels at (N, 2) positions in the map."""
    width = features.shape[2]
    low = positions.floor()
    weight = positions - low
    top, left = low.long().unbind(1)
    bottom, right = positions.ceil().long().unbind(1)
    wi, wj = weight.unbind(1)
    result = features.new_zeros((len(positions), features.shape[0]), dtype=torch.float32)
    for i, j, w in (
        (top, left, (1 - wi) * (1 - wj)),
        (top, right, (1 - wi) * wj),
        (bottom, left, wi * (1 - wj)),
        (bottom, right, wi * wj),
    ):
        result += _columns(features, i * width + j) * w[:, None]
    return result


def _columns(features: Tensor, index: Tensor) -> Tensor:
    """(N, C) float32: all channels of the cells at flat ``index``, read along memory."""
    if features.stride(0) == 1:
        return features.permute(1, 2, 0).flatten(0, 1)[index].float()
    return features.flatten(1).index_select(1, index).T.float()
