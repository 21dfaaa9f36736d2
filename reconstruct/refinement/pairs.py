"""Alignment of the patches of every match of two images: by how much the match is off."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from reconstruct.geometry import Float64
from reconstruct.lazy import lazily
from reconstruct.refinement.affinities import local_affinities
from reconstruct.refinement.alignment import Warp, align
from reconstruct.refinement.patches import Pyramid
from reconstruct.refinement.settings import RefineConfig

if TYPE_CHECKING:
    import torch
    from torch import Tensor
else:
    torch = lazily("torch")

WINDOWS: Final = ((2, 8), (1, 10), (0, 12))
"""(pyramid level, radius in its pixels), from coarse to fine: 32, 20 and 12 pixels of the photo."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PairAlignment:
    """Alignments of the M matches of images 0 and 1, in pixels of the photos at ``max_edge``.

    Attributes:
        displacement: (M, 2) by which the keypoint of image 1 would have to move if that of image 0
            stayed.
        affinity: (M, 2, 2) ``1 from 0``: the residual of two displacements is delta1 - affinity
            delta0 - displacement.
        covariance: (M, 2, 2) of the displacement, due to image noise (and, where edges were
            aligned, to ``edge_sigma_px``).
        correlation: (M,) of the patches, -1 where a patch cannot be aligned.
        aligned: (M,) bool, which alignments are accepted.
    """

    displacement: NDArray[np.float32]
    affinity: NDArray[np.float32]
    covariance: NDArray[np.float32]
    correlation: NDArray[np.float32]
    aligned: NDArray[np.bool_]


def align_pair(
    pyramid0: Pyramid,
    pyramid1: Pyramid,
    keypoints0: NDArray[Any],
    keypoints1: NDArray[Any],
    matches: NDArray[Any],
    config: RefineConfig,
    affinity: Float64 | None = None,
) -> PairAlignment:
    """Align the patches of all matches of two images.

    The template comes from the image that shows a patch coarser: the finer one can be blurred to
    match it, but not the other way round. Where grey values do not align, the strength of edges may
    (``min_edge_correlation``).

    Args:
        pyramid0: Of image 0.
        pyramid1: Of image 1.
        keypoints0: (N0, 2) COLMAP pixels of photo 0.
        keypoints1: (N1, 2) COLMAP pixels of photo 1.
        matches: (M, 2) keypoint indices.
        config: Settings.
        affinity: (M, 2, 2) ``1 from 0`` in pixels at ``max_edge`` to start from, each of positive
            determinant; None: estimated from the neighbouring matches.
    """
    first = keypoints0[matches[:, 0]].astype(np.float64) * pyramid0.scale
    second = keypoints1[matches[:, 1]].astype(np.float64) * pyramid1.scale
    if affinity is None:
        affinity = local_affinities(first, second, config.neighbors)
    by_grey = _align(pyramid0, pyramid1, first, second, affinity, config)
    accepted = by_grey.accepted(config.min_correlation, config)
    if config.min_edge_correlation is None or accepted.all():
        return by_grey.judged(accepted)
    left = np.flatnonzero(~accepted)
    edges = pyramid0.edges, pyramid1.edges
    by_edges = _align(*edges, first[left], second[left], affinity[left], config)
    better = by_edges.accepted(config.min_edge_correlation, config)
    by_edges.covariance[:] += config.edge_sigma_px**2 * np.eye(2)
    by_grey.put(left[better], by_edges.select(better))
    accepted[left[better]] = True
    return by_grey.judged(accepted)


def _align(
    pyramid0: Pyramid,
    pyramid1: Pyramid,
    first: Float64,
    second: Float64,
    affinity: Float64,
    config: RefineConfig,
) -> _Columns:
    """Alignments of the patches at matching positions in both level 0, from ``1 from 0`` on."""
    alignments = _Columns.start(affinity)
    finer = np.linalg.det(affinity) >= 1  # image 1 shows the patch finer: image 0 is the template
    inverse = np.linalg.inv(affinity)
    for index in _same_level(np.flatnonzero(finer), affinity, pyramid1, config.chunk):
        part = _align_patches(
            pyramid0, pyramid1, first[index], second[index], affinity[index], config
        )
        alignments.put(index, part)
    for index in _same_level(np.flatnonzero(~finer), inverse, pyramid0, config.chunk):
        part = _align_patches(
            pyramid1, pyramid0, second[index], first[index], inverse[index], config
        )
        alignments.put(index, part.reversed())
    return alignments


@dataclass(frozen=True, slots=True, eq=False)
class _Columns:
    """Alignments as float64 columns, source from template."""

    displacement: Float64
    affinity: Float64
    covariance: Float64
    correlation: Float64

    @classmethod
    def start(cls, affinity: Float64) -> _Columns:
        count = len(affinity)
        nothing = np.full(count, -1.0)
        unsure = np.tile(np.eye(2), (count, 1, 1))
        return cls(np.zeros((count, 2)), affinity.copy(), unsure, nothing)

    def put(self, index: NDArray[Any], part: _Columns) -> None:
        self.displacement[index] = part.displacement
        self.affinity[index] = part.affinity
        self.covariance[index] = part.covariance
        self.correlation[index] = part.correlation

    def reversed(self) -> _Columns:
        """The same alignments with the two images' roles swapped: y = A x + d, x = A^-1 (y - d)."""
        singular = np.abs(np.linalg.det(self.affinity)) < 1e-4
        safe = np.where(singular[:, None, None], np.eye(2), self.affinity)
        inverse = np.linalg.inv(safe)
        return _Columns(
            -np.einsum("mij,mj->mi", inverse, self.displacement),
            inverse,
            inverse @ self.covariance @ inverse.transpose(0, 2, 1),
            np.where(singular, -1.0, self.correlation),
        )

    def select(self, index: NDArray[Any]) -> _Columns:
        """Some of the rows."""
        columns = self.displacement, self.affinity, self.covariance, self.correlation
        return _Columns(*(column[index] for column in columns))

    def accepted(self, min_correlation: float, config: RefineConfig) -> NDArray[np.bool_]:
        """(M,) which alignments are good enough for the settings."""
        sigma = np.sqrt(np.linalg.eigvalsh(self.covariance)[:, 1].clip(min=0))
        back = np.linalg.norm(self.reversed().displacement, axis=1)
        move = np.minimum(np.linalg.norm(self.displacement, axis=1), back)
        good = self.correlation > min_correlation
        return np.asarray(good & (move < config.max_move_px) & (sigma < config.max_sigma_px))

    def judged(self, accepted: NDArray[np.bool_]) -> PairAlignment:
        """The alignments, with the accepted ones marked."""
        return PairAlignment(
            displacement=self.displacement.astype(np.float32),
            affinity=self.affinity.astype(np.float32),
            covariance=self.covariance.astype(np.float32),
            correlation=self.correlation.astype(np.float32),
            aligned=accepted,
        )


def _same_level(
    index: NDArray[Any], source_from_template: NDArray[Any], source: Pyramid, chunk: int
) -> list[NDArray[Any]]:
    """Chunks of matches whose source patches come from one pyramid level: the one on which they are
    about as large as their templates."""
    scale = np.sqrt(np.linalg.det(source_from_template[index]))
    level = np.clip(np.round(np.log2(scale)), 0, len(source.levels) - 1).astype(int)
    groups = [index[level == each] for each in np.unique(level)]
    return [group[i : i + chunk] for group in groups for i in range(0, len(group), chunk)]


def _align_patches(
    template: Pyramid,
    source: Pyramid,
    positions: Float64,
    start: Float64,
    affinity: Float64,
    config: RefineConfig,
) -> _Columns:
    """Alignments of patches at ``positions`` in the template's level 0, ``start`` in the source's;
    all belong to one level of the source (see `_same_level`)."""
    scale = float(np.sqrt(np.linalg.det(affinity[0])))
    base = int(np.clip(np.round(np.log2(scale)), 0, len(source.levels) - 1))
    device = template.levels[0].device

    def tensor(values: Float64) -> Tensor:
        return torch.from_numpy(values.astype(np.float32)).to(device)

    at, begin = tensor(positions), tensor(start / 2**base)
    warp = Warp(center=begin, affinity=tensor(affinity / 2**base))
    for wanted, radius in WINDOWS:
        # A shift by whole levels on both sides: the affinity between them stays.
        level = min(wanted, len(template.levels) - 1, len(source.levels) - 1 - base)
        factor = 2**level
        fit = align(
            template.levels[level],
            at / factor,
            source.levels[base + level],
            Warp(center=warp.center / factor, affinity=warp.affinity),
            radius=radius,
            iterations=config.iterations,
        )
        warp = Warp(center=fit.warp.center * factor, affinity=fit.warp.affinity)
    return _Columns(
        ((warp.center - begin) * 2**base).cpu().numpy().astype(np.float64),
        (warp.affinity * 2**base).cpu().numpy().astype(np.float64),
        (fit.covariance * 4**base).cpu().numpy().astype(np.float64),
        fit.correlation.cpu().numpy().astype(np.float64),
    )
