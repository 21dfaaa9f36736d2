"""Pictures for notebooks, drawn with matplotlib (extra ``plot``)."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from reconstruct import colmap
from reconstruct.errors import UsageError
from reconstruct.images import read_image
from reconstruct.report.gps import up_of
from reconstruct.report.scene import ground_axes
from reconstruct.stages.georegister import read_gps
from reconstruct.types import LocalFeatures
from reconstruct.workspace import Workspace

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Photo = NDArray[np.uint8] | Path | str
Keypoints = LocalFeatures | NDArray[Any]
SHOWN_POINTS = 50_000


def plot_keypoints(image: Photo, keypoints: Keypoints, *, axes: Axes | None = None) -> Axes:
    """A photo with its keypoints.

    Args:
        image: (H, W, 3) uint8 RGB, or the path of a photo.
        keypoints: `LocalFeatures`, or (N, 2) COLMAP pixels.
        axes: matplotlib's, to draw on; None: a new figure.

    Raises:
        UsageError: matplotlib is not installed.
    """
    axes = axes or _axes(figsize=(8, 6))
    pixels, xy = _pixels(image), _positions(keypoints)
    _show(axes, pixels)
    axes.scatter(xy[:, 0], xy[:, 1], s=6, c="#ffb000", linewidths=0)
    return axes


def plot_matches(
    image0: Photo,
    image1: Photo,
    keypoints0: Keypoints,
    keypoints1: Keypoints,
    matches: NDArray[Any],
    *,
    values: NDArray[Any] | None = None,
    axes: Axes | None = None,
) -> Axes:
    """Two photos side by side and lines between matched keypoints.

    Args:
        keypoints0: `LocalFeatures`, or (N, 2) COLMAP pixels of the first photo.
        keypoints1: Likewise, of the second.
        matches: (M, 2) indices of keypoints, as `reconstruct.match` gives them.
        values: (M,) to colour the lines by, e.g. reprojection errors in pixels.
        axes: matplotlib's, to draw on; None: a new figure.

    Raises:
        UsageError: matplotlib is not installed, or ``matches`` is not (M, 2).
    """
    rows = np.asarray(matches)
    if rows.ndim != 2 or rows.shape[1] != 2:
        raise UsageError(f"matches: expected an array (M, 2), got {rows.shape}")
    axes = axes or _axes(figsize=(12, 5))
    left, right = _pixels(image0), _pixels(image1)
    height, start = max(len(left), len(right)), left.shape[1]
    both = np.full((height, start + right.shape[1], 3), 255, np.uint8)
    both[: len(left), :start], both[: len(right), start:] = left, right
    _show(axes, both)
    ends = np.stack(
        [_positions(keypoints0)[rows[:, 0]], _positions(keypoints1)[rows[:, 1]] + [start, 0]], 1
    )
    from matplotlib.collections import LineCollection

    lines = LineCollection(list(ends), linewidths=0.7, alpha=0.7)
    if values is None:
        lines.set_color("#22c55e")
    else:
        lines.set_array(np.asarray(values, np.float64))
        lines.set_cmap("RdYlBu_r")
        axes.figure.colorbar(lines, ax=axes, shrink=0.7)
    axes.add_collection(lines)
    return axes


def plot_model(model: colmap.Reconstruction | Path | str, *, axes: Axes | None = None) -> Axes:
    """Points in their colours and cameras of a model, seen from above.

    Args:
        model: pycolmap.Reconstruction, a COLMAP model folder, or a finished output folder.
        axes: matplotlib's, to draw on; None: a new figure.

    Raises:
        UsageError: matplotlib is not installed, or there is no model.
    """
    up = None
    if not isinstance(model, colmap.Reconstruction):
        up = up_of(read_gps(Workspace(Path(model))))
        model = colmap.read_model(colmap.model_folder(Path(model)))
    axes = axes or _axes(figsize=(7, 7))
    arrays = colmap.model_arrays(model)
    if not len(arrays.names):
        raise UsageError("plot_model: no image of this model is registered")
    plan = ground_axes(arrays.poses, up)
    step = max(1, len(arrays.xyz) // SHOWN_POINTS)
    points, centers = arrays.xyz[::step] @ plan.T, arrays.centers @ plan.T
    axes.scatter(points[:, 0], points[:, 1], s=1, c=arrays.colors[::step] / 255, linewidths=0)
    ahead = arrays.poses[:, 2, :3] @ plan.T
    axes.quiver(
        centers[:, 0],
        centers[:, 1],
        ahead[:, 0],
        ahead[:, 1],
        color="#d9730d",
        angles="xy",
        width=0.003,
    )
    axes.scatter(centers[:, 0], centers[:, 1], s=12, c="#d9730d", zorder=3)
    shown = np.vstack([centers, np.percentile(points, [1, 99], axis=0)]) if len(points) else centers
    reach = 0.55 * max(float(np.ptp(shown, axis=0).max()), 1e-9)
    middle = (shown.min(0) + shown.max(0)) / 2
    axes.set(xlim=middle[0] + [-reach, reach], ylim=middle[1] + [-reach, reach], aspect="equal")
    return axes


def _axes(figsize: tuple[float, float]) -> Axes:
    try:
        import matplotlib.pyplot as plt
    except ImportError as error:
        raise UsageError(
            "pictures for notebooks need matplotlib: pip install 'reconstruct[plot]'"
        ) from error
    axes: Axes = plt.subplots(figsize=figsize, layout="constrained")[1]
    return axes


def _pixels(image: Photo) -> NDArray[np.uint8]:
    return read_image(image) if isinstance(image, Path | str) else image


def _positions(keypoints: Keypoints) -> NDArray[np.float64]:
    xy = keypoints.keypoints if isinstance(keypoints, LocalFeatures) else keypoints
    return np.asarray(xy, np.float64).reshape(len(xy), -1)[:, :2]


def _show(axes: Axes, pixels: NDArray[np.uint8]) -> None:
    """In COLMAP pixels: the outer corner of the first pixel is the origin."""
    height, width = pixels.shape[:2]
    axes.imshow(pixels, extent=(0, width, height, 0))
    axes.set_axis_off()
