"""D2-Net's loss: descriptors that tell cells apart, detections where they do.

Dusmanu et al., "D2-Net", CVPR 2019, section 4, equations 3 to 13. With F the map of conv4_3 before
its ReLU, G = relu(F), M the maximum of G over an image:

    alpha_ijk = exp(G_ijk / M) / sum of exp(G / M) over the 3x3 window (what lies outside counts 1)
    beta_ijk  = G_ijk / max_t G_ijt
    s_ij      = max_k alpha_ijk beta_ijk, divided by its sum over the image

and for correspondences c = (A, B), all distances squared, of descriptors of unit length,

    p_c = |d1_A - d2_B|^2,   n_c = the least of |d1_A - d2_K|^2 and |d1_K - d2_B|^2
          over the cells K farther than ``safe_radius`` cells (Chebyshev) from B, or from A
    L   = sum_c s1_A s2_B max(0, margin + p_c - n_c) / sum_c s1_A s2_B

Guards: a map that is zero everywhere, or in one cell, gives scores of zero and no NaN; a map so
small that no cell is far enough has no negative, and its correspondences cost nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

TINY = 1e-12


@dataclass(frozen=True, slots=True)
class Described:
    """One image.

    Attributes:
        descriptors: (h * w, C) unit vectors.
        scores: (h * w,) soft detection scores.
        width: w.
    """

    descriptors: Tensor
    scores: Tensor
    width: int


def describe(maps: Tensor, relu_descriptors: bool) -> list[Described]:
    """Descriptors and scores of (B, C, h, w) maps of the last convolution, before its ReLU."""
    maps = maps.float() if maps.dtype == torch.bfloat16 else maps
    scores = soft_scores(maps).flatten(1)
    source = F.relu(maps) if relu_descriptors else maps
    rows = source.permute(0, 2, 3, 1).flatten(1, 2)  # no copy where channels come last in memory
    descriptors = F.normalize(rows, dim=2)
    width = maps.shape[3]
    return [Described(d, s, width) for d, s in zip(descriptors, scores, strict=True)]


def soft_scores(maps: Tensor) -> Tensor:
    """(B, h, w) soft detection scores of (B, C, h, w) maps; their sum over an image is 1, or 0 for
    a map of zeros.

    A score depends on one channel, so its gradient needs 10 values per cell and not 9 C: these are
    determined without a graph, and only they are gathered.
    """
    padded = F.pad(F.relu(maps), [1] * 4)  # of zeros, and exp(0) = 1 is what lies outside
    rows = padded.permute(0, 2, 3, 1).flatten(1)  # no copy where channels come last in memory
    with torch.no_grad():
        deciding = [_largest(rows), *_deciding(padded)]
    sizes = [index.shape[1] for index in deciding]
    values = rows.gather(1, torch.cat(deciding, dim=1))
    largest, top, window = torch.split(values, sizes, dim=1)
    window = window.view(len(maps), 9, -1)
    exponential = torch.exp(window / largest.clamp(min=TINY)[:, None])
    alpha = exponential[:, 4] / exponential.sum(dim=1)
    score = alpha * window[:, 4] / top.clamp(min=TINY)
    score = score / score.sum(dim=1, keepdim=True).clamp(min=TINY)
    return score.view(len(maps), *maps.shape[2:])


def _largest(rows: Tensor) -> Tensor:
    """(B, 1) index of the largest value of each image."""
    return rows.argmax(dim=1, keepdim=True)


def _deciding(padded: Tensor) -> tuple[Tensor, Tensor]:
    """Indices into (h + 2, w + 2, C) of the values that decide the scores: (B, h w) the largest
    channel of each cell, and (B, 9 h w) the window of the channel that scores."""
    maps = padded.permute(0, 2, 3, 1)
    _, height, width, channels = maps.shape
    exponential = torch.exp(maps / maps.amax(dim=(1, 2, 3), keepdim=True).clamp(min=TINY))
    columns = exponential[:, :-2] + exponential[:, 1:-1] + exponential[:, 2:]
    window = columns[:, :, :-2] + columns[:, :, 1:-1] + columns[:, :, 2:]
    inner = maps[:, 1:-1, 1:-1]
    top = inner.argmax(dim=3)
    # beta's denominator is the same for all channels of a cell
    chosen = (exponential[:, 1:-1, 1:-1] / window * inner).argmax(dim=3)
    cells = torch.arange(height * width, device=maps.device).view(height, width) * channels
    starts = [cells[i : i + height - 2, j : j + width - 2] for i in range(3) for j in range(3)]
    return (top + starts[4]).flatten(1), torch.stack([chosen + s for s in starts], 1).flatten(1)


def pair_loss(
    first: Described, second: Described, cells: Tensor, *, safe_radius: int = 4, margin: float = 1.0
) -> Tensor:
    """The loss L of a pair, a scalar.

    Args:
        first: The first image.
        second: The second image.
        cells: (M, 2) int64 flat indices of corresponding cells, M >= 1.
        safe_radius: Negatives are farther than this from the true cell (Chebyshev).
        margin: By how much a negative has to be farther than the true cell.
    """
    a, b = cells.unbind(1)
    with torch.no_grad():  # which negative it is needs no gradient; how far it is comes below
        similarity = first.descriptors @ second.descriptors.T
        in_second = _hardest(similarity.index_select(0, a), b, second, safe_radius)
        in_first = _hardest(similarity.T.index_select(0, b), a, first, safe_radius)
    # index_select: its gradient is an index_add, many times as fast as that of x[index] on a CPU.
    anchors = first.descriptors.index_select(0, a)
    partners = second.descriptors.index_select(0, b)
    positive = 2.0 - 2.0 * (anchors * partners).sum(1)
    negative = torch.minimum(
        _distances(anchors, second, in_second), _distances(partners, first, in_first)
    )
    weights = first.scores.index_select(0, a) * second.scores.index_select(0, b)
    cost = weights * F.relu(margin + positive - negative)
    return cost.sum() / weights.sum().clamp(min=TINY)


def _hardest(similarity: Tensor, near: Tensor, image: Described, radius: int) -> Tensor:
    """(M,) the cell of ``image`` most similar to each anchor, among those farther than ``radius``
    from the anchor's true cell ``near``; -1 if there is none. Changes the (M, h w) similarity."""
    similarity.masked_fill_(_within(near, image, radius), -torch.inf)
    best, index = similarity.max(dim=1)
    return index.masked_fill_(best == -torch.inf, -1)


def _distances(anchors: Tensor, image: Described, cells: Tensor) -> Tensor:
    """(M,) squared distance of each anchor to its cell; infinite for cell -1."""
    found = image.descriptors.index_select(0, cells.clamp(min=0))
    return (2.0 - 2.0 * (anchors * found).sum(1)).masked_fill(cells < 0, torch.inf)


def _within(cells: Tensor, image: Described, radius: int) -> Tensor:
    """(M, h * w) whether a cell lies within ``radius`` (Chebyshev) of each of (M,) ``cells``."""
    height, width = len(image.descriptors) // image.width, image.width
    rows = torch.arange(height, device=cells.device) - (cells // width)[:, None]
    columns = torch.arange(width, device=cells.device) - (cells % width)[:, None]
    near = (rows.abs() <= radius)[:, :, None] & (columns.abs() <= radius)[:, None, :]
    return near.flatten(1)
