"""Curves of a training run: a CSV, a plot, and TensorBoard if asked for."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from reconstruct.atomic import atomic_path
from reconstruct.errors import UsageError
from reconstruct.evaluation.plots import draw_curves

COLUMNS = ("step", "rate", "loss", "gradient_norm", "pairs", "validation")
SMOOTHED = 50
"""Most steps over which the drawn training loss is averaged; of short runs a tenth."""
DRAWN = 400
"""Number of points of a plotted curve, about."""


def write_csv(path: Path, rows: Sequence[dict[str, float]]) -> None:
    """Write a line for each step; ``validation`` is empty where it was not computed."""
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    with atomic_path(path) as temporary:
        temporary.write_text(text.getvalue(), encoding="utf-8")


def draw(rows: Sequence[dict[str, float]]) -> str:
    """Training and validation loss over the steps as SVG; the lowest validation loss has its name
    in the legend."""
    loss = np.array([row["loss"] for row in rows])
    width = max(1, min(SMOOTHED, len(loss) // 10))
    smooth = np.convolve(loss, np.full(width, 1 / width), "valid") if len(loss) else loss
    drawn = range(0, len(smooth), max(1, len(smooth) // DRAWN))
    label = "training" if width == 1 else f"training, mean of {width} steps"
    curves = {label: {f"{i + width}": float(smooth[i]) for i in drawn}}
    checked = {f"{row['step']:g}": row["validation"] for row in rows if "validation" in row}
    if checked:
        best = min(checked, key=lambda step: checked[step])
        curves["validation"] = checked
        curves[f"best: {checked[best]:.4f} at step {best}"] = {best: checked[best]}
    return draw_curves({"loss": curves}, xlabel="step", ylabel="loss", y=None)


def write_tensorboard(folder: Path, rows: Sequence[dict[str, float]]) -> None:
    """Write the curves for TensorBoard. Raises UsageError if the package is not installed."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise UsageError(
            "train.tensorboard needs the package tensorboard: pip install tensorboard, "
            "or set it to false; curves.csv is written anyway"
        ) from error
    with SummaryWriter(str(folder)) as writer:
        for row in rows:
            for name in ("loss", "rate", "gradient_norm", "validation"):
                if name in row:
                    writer.add_scalar(name, row[name], int(row["step"]))
