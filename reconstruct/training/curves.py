"""Curves of a training run: a CSV, a plot, and TensorBoard if asked for."""

from __future__ import annotations

import csv
import importlib.util
import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from reconstruct.errors import UsageError
from reconstruct.evaluation.plots import as_svg
from reconstruct.workspace import atomic_path

COLUMNS = ("step", "rate", "loss", "gradient_norm", "pairs", "validation")
SMOOTHED = 50
"""Number of steps over which the plotted training loss is averaged."""


def write_csv(path: Path, rows: Sequence[dict[str, float]]) -> None:
    """Write a line for each step; ``validation`` is empty where it was not computed."""
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    with atomic_path(path) as temporary:
        temporary.write_text(text.getvalue(), encoding="utf-8")


def draw(rows: Sequence[dict[str, float]]) -> str | None:
    """Training and validation loss over the steps as SVG; None if matplotlib is not installed."""
    if importlib.util.find_spec("matplotlib") is None:
        return None
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.add_subplot()
    loss = np.array([row["loss"] for row in rows])
    width = max(1, min(SMOOTHED, len(loss)))
    smooth = np.convolve(loss, np.full(width, 1 / width), "valid")
    axes.plot(np.arange(width, len(loss) + 1), smooth, label=f"training, mean of {width} steps")
    checked = [(row["step"], row["validation"]) for row in rows if "validation" in row]
    if checked:
        axes.plot(*zip(*checked, strict=True), "o-", label="validation")
    axes.set(xlabel="step", ylabel="loss")
    axes.grid(alpha=0.3)
    axes.legend()
    return as_svg(figure)


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
