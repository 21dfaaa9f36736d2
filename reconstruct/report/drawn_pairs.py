"""The matches of a pair in an output folder, drawn on its two photos."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from reconstruct.report.content import PairFigure, Picture
from reconstruct.report.figures import count
from reconstruct.report.output import OutputFolder
from reconstruct.report.pairs import DrawnMatches, keypoint_errors, pair_figure, verified_caption
from reconstruct.types import ImagePair

Stored = tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.uint32]]
"""Keypoints of both photos and the verified matches between them, as the database has them."""


def verified_figure(
    output: OutputFolder, label: str, pair: ImagePair, stored: Stored, budget: int
) -> PairFigure | None:
    """Verified matches, by the reprojection errors that the largest model leaves them; None where a
    photo cannot be read.

    Args:
        output: What holds the pair.
        label: Why the pair is shown.
        pair: Names of the two photos.
        stored: From the database.
        budget: Bytes of each photo in the page.
    """
    left, right, rows = stored
    errors = np.full((2, len(rows)), np.nan)
    if output.models:
        for i, (name, xy) in enumerate(zip(pair, (left, right), strict=True)):
            known = keypoint_errors(output.models[0], output.errors_px, name, len(xy))
            errors[i] = known[rows[:, i]]
    mean = errors.mean(axis=0)
    drawn = DrawnMatches(
        left=left[rows[:, 0]].astype(np.float64),
        right=right[rows[:, 1]].astype(np.float64),
        errors_px=mean,
    )
    pictures = _pictures(output, pair, budget)
    if pictures is None:
        return None
    raw = len(output.matches(*pair))
    caption = verified_caption(len(rows), raw, int(np.isfinite(mean).sum()))
    return pair_figure(label, caption, pictures, drawn, failed=False)


def failed_figure(
    output: OutputFolder, label: str, pair: ImagePair, budget: int
) -> PairFigure | None:
    """Matches that no two-view geometry explains; arguments as of `verified_figure`."""
    rows = output.matches(*pair)
    caption = (
        f"{count(len(rows), 'match')}, none verified: no one geometry explains enough of them"
        if len(rows)
        else "no matches"
    )
    return _without_points(output, label, pair, rows, caption, budget)


def removed_figure(
    output: OutputFolder, label: str, pair: ImagePair, conflict: float | None, budget: int
) -> PairFigure | None:
    """Verified matches of a pair that was removed, as its photos show places that only look alike;
    ``conflict`` of the two photos themselves, if there is any. Other arguments as of
    `verified_figure`."""
    rows = output.inliers(pair)
    reason = "photos of the one place contradict photos of the other"
    if conflict is not None:
        reason = "beside them, the two see different things on one surface"
    caption = f"{count(len(rows), 'match')} agree, but {reason}"
    return _without_points(output, label, pair, rows, caption, budget)


def _without_points(
    output: OutputFolder,
    label: str,
    pair: ImagePair,
    rows: NDArray[np.uint32],
    caption: str,
    budget: int,
) -> PairFigure | None:
    """(M, 2) matches that no 3D point came of."""
    points = [output.keypoints(name) for name in pair]
    pictures = _pictures(output, pair, budget)
    if pictures is None or points[0] is None or points[1] is None:
        return None
    drawn = DrawnMatches(
        left=points[0][rows[:, 0]].astype(np.float64),
        right=points[1][rows[:, 1]].astype(np.float64),
        errors_px=np.full(len(rows), np.nan),
    )
    return pair_figure(label, caption, pictures, drawn, failed=True)


def _pictures(output: OutputFolder, pair: ImagePair, budget: int) -> tuple[Picture, Picture] | None:
    left, right = (output.picture(name, budget) for name in pair)
    return None if left is None or right is None else (left, right)
