"""Positions of the cells of a feature map in a crop, for the two layouts of the network.

``release``    as the authors train: the third pooling is a max pooling, stride 8, no dilation;
descriptors before the last ReLU. Cell p is centred at pixel index 8p + 3.5.

``test_time``  as features are extracted: average pooling at stride 1, dilation 2, stride 4;
descriptors after the last ReLU. Cell p is centred at pixel index 4p + 3.5.

Positions are COLMAP pixels of the crop, 0.5 more than pixel indices: in both layouts cell 0 is at
4.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from reconstruct.geometry import Float64

LayoutName = Literal["release", "test_time"]
FIRST_CENTRE_PX: Final = 4.0
Mask = NDArray[np.bool_]
Cells = NDArray[np.int32]
"""(M, 2) flat indices (row * columns + column): a cell of the first map and one of the second."""
Mapping = Callable[[Float64], tuple[Float64, NDArray[np.bool_]]]
"""(N, 2) positions in one crop -> (N, 2) positions in another, and (N,) which of them are valid."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """Layout of a feature map.

    Attributes:
        name: Its name in a training file.
        stride_px: Distance of neighbouring cells in pixels.
        border_cells: An edge of n pixels has n // stride_px cells less these.
        relu_descriptors: Whether descriptors are taken after the last ReLU.
    """

    name: LayoutName
    stride_px: int
    border_cells: int
    relu_descriptors: bool

    def cells(self, edge_px: int) -> int:
        """Cells along an edge."""
        return max(0, edge_px // self.stride_px - self.border_cells)

    def centres(self, edge_px: int) -> Float64:
        """(N, 2) positions of all cells of a square crop, row by row."""
        line = FIRST_CENTRE_PX + self.stride_px * np.arange(self.cells(edge_px), dtype=np.float64)
        x, y = np.meshgrid(line, line)
        return np.column_stack([x.ravel(), y.ravel()])

    def nearest(self, positions: Float64, edge_px: int) -> tuple[NDArray[np.int32], Mask]:
        """(N,) flat index of the cell nearest to each position, and whether there is one."""
        count = self.cells(edge_px)
        finite: Mask = np.asarray(np.isfinite(positions).all(axis=1))
        grid = (np.where(finite[:, None], positions, -1e6) - FIRST_CENTRE_PX) / self.stride_px
        cell = np.rint(grid.clip(-1e6, 1e6)).astype(np.int32)
        inside: Mask = np.asarray(np.all((cell >= 0) & (cell < count), axis=1))
        return cell[:, 1] * count + cell[:, 0], inside


LAYOUTS: Final = {
    "release": Layout(name="release", stride_px=8, border_cells=0, relu_descriptors=False),
    "test_time": Layout(name="test_time", stride_px=4, border_cells=1, relu_descriptors=True),
}


def correspondences(layout: Layout, edge_px: int, mapping: Mapping) -> Cells:
    """Corresponding cells of two crops, by mapping the cells' centres.

    Args:
        layout: Layout of the network.
        edge_px: Edge of the crops.
        mapping: From the first crop to the second.
    """
    target, counts = mapping(layout.centres(edge_px))
    second, inside = layout.nearest(target, edge_px)
    first = np.flatnonzero(counts & inside).astype(np.int32)
    return np.column_stack([first, second[first]]).astype(np.int32)


def point_correspondences(layout: Layout, edge_px: int, a: Float64, b: Float64) -> Cells:
    """The cells of corresponding positions in two crops.

    Args:
        layout: Layout of the network.
        edge_px: Edge of the crops.
        a: (N, 2) positions in the first crop.
        b: (N, 2) corresponding positions in the second crop.

    Returns:
        Sorted cells, each pair once.
    """
    first, inside_a = layout.nearest(a, edge_px)
    second, inside_b = layout.nearest(b, edge_px)
    rows = np.column_stack([first, second])[inside_a & inside_b]
    return np.unique(rows, axis=0).reshape(-1, 2).astype(np.int32)
