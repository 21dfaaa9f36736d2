"""Alignment of the patches of every match of two images: by how much the match is off."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from reconstruct.geometry import Float64
from reconstruct.lazy import lazily
from reconstruct.refinement.affinities import local_affinities
from reconstruct.refinement.alignment import Warp, align
from reconstruct.refinement.patches import MAP_CELL_PX, Pyramid
from reconstruct.refinement.search import search
from reconstruct.refinement.settings import RefineConfig

if TYPE_CHECKING:
    import torch
    from torch import Tensor
else:
    torch = lazily("torch")

Levels = tuple["Tensor", ...]
WINDOWS: Final = ((2, 8), (1, 10), (0, 12))
"""(pyramid level, radius in its pixels), from coarse to fine: 32, 20 and 12 pixels of the photo."""
SEARCH_NEIGHBORS: Final = 2
"""Where no grey values align, affinities are less exact: so many times as many neighbours."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PairAlignment:
    """Alignments of the M matches of images 0 and 1, in pixels of the photos at ``max_edge``.

    Attributes:
        displacement: (M, 2) by which the keypoint of image 1 would have to move if that of image 0
            stayed.
        affinity: (M, 2, 2) ``1 from 0``: the residual of two displacements is delta1 - affinity
            delta0 - displacement.
        covariance: (M, 2, 2) of the displacement, due to image noise (and, where edges were
            aligned or maps searched, to ``edge_sigma_px`` or ``map_sigma_px``).
        correlation: (M,) of the patches, -1 where a patch cannot be aligned.
        aligned: (M,) bool, which alignments are accepted.
    """

    displacement: NDArray[np.float32]
    affinity: NDArray[np.float32]
    covariance: NDArray[np.float32]
    correlation: NDArray[np.float32]
    aligned: NDArray[np.bool_]

    def check(self) -> None:
        """Raise ValueError unless the shapes are those above, and what is accepted is finite, with
        covariances that can be inverted once a positive one is added."""
        if self.aligned.dtype != np.bool_:
            raise ValueError(f"a mask of {self.aligned.dtype}")
        count = len(self.aligned)
        shapes = {"displacement": (2,), "affinity": (2, 2), "covariance": (2, 2), "correlation": ()}
        for name, shape in shapes.items():
            values = getattr(self, name)
            if values.shape != (count, *shape):
                raise ValueError(f"{name} of shape {values.shape}")
            if not np.isfinite(values[self.aligned]).all():
                raise ValueError(f"{name} that is no number")
        (xx, xy), (yx, yy) = self.covariance[self.aligned].astype(np.float64).transpose(1, 2, 0)
        # Along an edge they are all but singular, and float32 rounds them to either side.
        if not np.all((xx >= 0) & (yy >= 0) & (xx * yy * 1.001 >= np.maximum(xy**2, yx**2))):
            raise ValueError("a covariance that is none")


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
    (``min_edge_correlation``), or what a network says of the surroundings (``min_map_similarity``).

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
    start = affinity
    if start is None:
        start = local_affinities(first, second, config.neighbors)
    found = _align(pyramid0, pyramid1, first, second, start, config)
    accepted = found.accepted(config.min_correlation, config)

    def accept(index: NDArray[Any], part: _Columns, least: float, sigma_px: float = 0.0) -> None:
        """Take those of ``part``, alignments of the matches ``index``, that are good enough.

        sigma_px: error of such an alignment beyond image noise.
        """
        good = part.accepted(least, config)
        part.covariance[:] += sigma_px**2 * np.eye(2)
        found.put(index[good], part.select(good))
        accepted[index[good]] = True

    if config.min_map_similarity is not None and not accepted.all():
        left = np.flatnonzero(~accepted)
        if affinity is None:  # more exact where neighbours are aligned by now
            moved = second + np.where(accepted[:, None], found.displacement, 0.0)
            start = local_affinities(first, moved, SEARCH_NEIGHBORS * config.neighbors)
        by_maps = _search(pyramid0, pyramid1, first[left], second[left], start[left], config)
        accept(left, by_maps, config.min_map_similarity, config.map_sigma_px)
    if config.min_edge_correlation is not None and not accepted.all():
        left = np.flatnonzero(~accepted)
        edges = pyramid0.edges, pyramid1.edges
        by_edges = _align(*edges, first[left], second[left], start[left], config)
        accept(left, by_edges, config.min_edge_correlation, config.edge_sigma_px)
    return found.judged(accepted)


def _align(
    pyramid0: Pyramid,
    pyramid1: Pyramid,
    first: Float64,
    second: Float64,
    affinity: Float64,
    config: RefineConfig,
) -> _Columns:
    """Alignments of the patches at matching positions in both level 0, from ``1 from 0`` on."""
    levels = pyramid0.levels, pyramid1.levels
    step = partial(_align_patches, iterations=config.iterations)
    return _from_coarser(step, levels, first, second, affinity, config.chunk)


def _search(
    pyramid0: Pyramid,
    pyramid1: Pyramid,
    first: Float64,
    second: Float64,
    affinity: Float64,
    config: RefineConfig,
) -> _Columns:
    """As `_align`, by search in the maps; similarities stand for correlations."""
    levels = pyramid0.map_levels(), pyramid1.map_levels()
    return _from_coarser(_search_patches, levels, first, second, affinity, config.chunk)


def _from_coarser(
    step: Callable[[Levels, Levels, Float64, Float64, Float64], _Columns],
    levels: tuple[Levels, Levels],
    first: Float64,
    second: Float64,
    affinity: Float64,
    chunk: int,
) -> _Columns:
    """Alignments by ``step``, which takes the templates' image before the sources'."""
    alignments = _Columns.start(affinity)
    finer = np.linalg.det(affinity) >= 1  # image 1 shows the patch finer: image 0 is the template
    inverse = np.linalg.inv(affinity)
    for index in _same_level(np.flatnonzero(finer), affinity, len(levels[1]), chunk):
        part = step(*levels, first[index], second[index], affinity[index])
        alignments.put(index, part)
    for index in _same_level(np.flatnonzero(~finer), inverse, len(levels[0]), chunk):
        part = step(*levels[::-1], second[index], first[index], inverse[index])
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
    index: NDArray[Any], source_from_template: NDArray[Any], levels: int, chunk: int
) -> list[NDArray[Any]]:
    """Chunks of matches whose source patches come from one of so many levels: the one on which they
    are about as large as their templates."""
    level = _base(source_from_template[index], levels)
    groups = [index[level == each] for each in np.unique(level)]
    return [group[i : i + chunk] for group in groups for i in range(0, len(group), chunk)]


def _base(source_from_template: Float64, levels: int) -> NDArray[np.int64]:
    """(M,) the level of the source on which a patch is about as large as its template."""
    scale = np.sqrt(np.linalg.det(source_from_template))
    return np.asarray(np.clip(np.round(np.log2(scale)), 0, levels - 1), np.int64)


def _tensors(device: torch.device, *values: Float64) -> list[Tensor]:
    return [torch.from_numpy(value.astype(np.float32)).to(device) for value in values]


def _align_patches(
    template: Levels,
    source: Levels,
    positions: Float64,
    start: Float64,
    affinity: Float64,
    *,
    iterations: int,
) -> _Columns:
    """Alignments of patches at ``positions`` in the template's level 0, ``start`` in the source's;
    all belong to one level of the source (see `_same_level`)."""
    base = int(_base(affinity[0], len(source)))
    scaled = positions, start / 2**base, affinity / 2**base
    at, begin, shape = _tensors(template[0].device, *scaled)
    warp = Warp(center=begin, affinity=shape)
    for wanted, radius in WINDOWS:
        # A shift by whole levels on both sides: the affinity between them stays.
        level = min(wanted, len(template) - 1, len(source) - 1 - base)
        factor = 2**level
        fit = align(
            template[level],
            at / factor,
            source[base + level],
            Warp(center=warp.center / factor, affinity=warp.affinity),
            radius=radius,
            iterations=iterations,
        )
        warp = Warp(center=fit.warp.center * factor, affinity=fit.warp.affinity)
    return _Columns(
        ((warp.center - begin) * 2**base).cpu().numpy().astype(np.float64),
        (warp.affinity * 2**base).cpu().numpy().astype(np.float64),
        (fit.covariance * 4**base).cpu().numpy().astype(np.float64),
        fit.correlation.cpu().numpy().astype(np.float64),
    )


def _search_patches(
    template: Levels, source: Levels, positions: Float64, start: Float64, affinity: Float64
) -> _Columns:
    """As `_align_patches`, by search in the levels of maps."""
    base = int(_base(affinity[0], len(source)))
    pixels = MAP_CELL_PX * 2**base  # a cell of the source
    scaled = positions / MAP_CELL_PX, start / pixels, affinity / 2**base
    at, begin, shape = _tensors(template[0].device, *scaled)
    found = search(template, at, source[base:], Warp(center=begin, affinity=shape))
    return _Columns(
        (pixels * (found.center - begin)).cpu().numpy().astype(np.float64),
        affinity.copy(),
        np.zeros_like(affinity),
        found.similarity.cpu().numpy().astype(np.float64),
    )
