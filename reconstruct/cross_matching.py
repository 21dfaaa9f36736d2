"""Matches between photos of two output folders, which no run has matched: retrieved, matched and
verified."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from reconstruct import colmap, matching
from reconstruct.config import Section, shown
from reconstruct.errors import UsageError
from reconstruct.features import input_scale
from reconstruct.fingerprints import file_hash
from reconstruct.matching.config import MatchConfig, default_match
from reconstruct.matching.many import match_pairs, tiled
from reconstruct.parallel import side_by_side
from reconstruct.retrieval.index import GlobalIndex, read_index
from reconstruct.retrieval.nearest import nearest
from reconstruct.stages.extract_settings import ExtractConfig
from reconstruct.stages.outcome import read_settings
from reconstruct.stages.verify import VerifyConfig
from reconstruct.storage.features import FeatureStore
from reconstruct.storage.shards import ShardStore
from reconstruct.types import FloatArray, ImagePair, LocalFeatures
from reconstruct.workspace import Workspace

logger = logging.getLogger("reconstruct")

FEW_PAIRS = 2500
"""Up to so many pairs each photo is matched with all of the other folder: 50 photos and 50."""


class MatchingSettings(Section):
    """The sections of a run's settings that decide how its photos are matched with others."""

    seed: int = 0
    extract: ExtractConfig
    match: MatchConfig = default_match()
    verify: VerifyConfig = VerifyConfig.model_validate({})

    def pixel_scale(self, camera: colmap.Camera) -> float:
        """Pixels of a photo that one of `verify`'s is wide."""
        if self.verify.pixels == "photo":
            return 1.0
        return input_scale(self.extract.local, (camera.width, camera.height))


@dataclass(frozen=True)
class PhotoFolder:
    """An output folder whose photos can be matched with those of another.

    Args:
        root: The folder, which holds ``features`` and ``run.yaml``.
    """

    root: Path

    @cached_property
    def settings(self) -> MatchingSettings:
        """How its photos were extracted and matched. Raises ConfigError."""
        return read_settings(Workspace(self.root).config, MatchingSettings)

    @cached_property
    def features(self) -> FeatureStore:
        """Its local features."""
        return FeatureStore(Workspace(self.root).features)

    @cached_property
    def index(self) -> GlobalIndex | None:
        """Its global descriptors; None if it has none."""
        path = Workspace(self.root).global_ / "index.h5"
        return read_index(path) if path.is_file() else None

    def described(self, name: str, like: GlobalIndex) -> FloatArray:
        """(D,) global descriptor of a photo, aggregated as those of another folder."""
        rows = ShardStore(Workspace(self.root).global_).read(name)["rows"]
        return np.asarray(like.aggregation(rows), np.float32)

    @property
    def kind(self) -> list[object]:
        """JSON-able: what two folders must have in common for their descriptors to be compared."""
        extract = self.settings.extract
        compact = extract.compact
        own = Workspace(self.root).features / "basis.safetensors"
        basis = Path(compact.basis) if compact.basis else own
        content = None if compact.dim is None else file_hash(basis)
        return [extract.local.identity(), compact.encoding, compact.dim, content]

    @property
    def global_kind(self) -> object:
        """JSON-able: the same for their global descriptors."""
        global_ = self.settings.extract.global_
        return None if global_ is None or self.index is None else global_.identity()


def photo_folder(path: Path) -> PhotoFolder | None:
    """The output folder at ``path``; None if it holds no features, as a model alone."""
    workspace = Workspace(path)
    if workspace.features.is_dir() and workspace.config.is_file():
        return PhotoFolder(path)
    return None


@dataclass(frozen=True, slots=True, eq=False)
class Photos:
    """The photos of a model, each with the folder that holds its features.

    Args:
        model: The model.
        folders: Photo -> its folder.
    """

    model: colmap.Reconstruction
    folders: dict[str, PhotoFolder]


def cross_matches(
    source: Photos, target: Photos, *, neighbors: int = 20, device: str = "auto"
) -> colmap.Links:
    """Verified matches between the photos of two models, those that both have left out.

    Settings of matching and verification are those of the target's run. Keypoints are those of the
    models, which refinement may have moved, and so are the cameras.

    Args:
        source: One model's photos.
        target: The other's.
        neighbors: Photos of the other model that each is matched with, by global descriptors, where
            there are more than `FEW_PAIRS` pairs.
        device: Of the matcher.

    Returns:
        (photo of the source, photo of the target) -> (M, 2) keypoint numbers.

    Raises:
        UsageError: The features are not of one kind, or there are too many pairs and no global
            descriptors.
    """
    shared = set(colmap.model_poses(source.model)) & set(colmap.model_poses(target.model))
    names = [sorted(set(side.folders) - shared) for side in (source, target)]
    if not names[0] or not names[1]:
        return {}
    settings = _common_settings(source, target, names)
    pairs = _pairs(source, target, names, neighbors)
    logger.info("join: %d pairs of photos to match", len(pairs))
    matches = _match(source, target, pairs, settings, device)
    return _verify(source, target, matches, settings)


def _match(
    source: Photos,
    target: Photos,
    pairs: Sequence[ImagePair],
    settings: MatchingSettings,
    device: str,
) -> dict[ImagePair, NDArray[np.uint32]]:
    matcher = matching.create(settings.match, device)

    def load(key: str) -> LocalFeatures:
        side, name = (source if key[0] == "s" else target), key[1:]
        return side.folders[name].features.load(name, matcher.reads)

    keys = tiled([(f"s{a}", f"t{b}") for a, b in pairs])  # both sides may have a photo of one name
    found = match_pairs(matcher, keys, load, cache_mb=settings.match.cache_mb)
    return {(a[1:], b[1:]): matches.indices for (a, b), matches in found}


def _verify(
    source: Photos,
    target: Photos,
    matches: dict[ImagePair, NDArray[np.uint32]],
    settings: MatchingSettings,
) -> dict[ImagePair, NDArray[np.uint32]]:
    cameras = colmap.model_cameras(source.model), colmap.model_cameras(target.model)
    tracks = colmap.Tracks(source.model), colmap.Tracks(target.model)
    keypoints = [
        {name: own.keypoints(name) for name in {pair[side] for pair in matches}}
        for side, own in enumerate(tracks)
    ]

    def inliers(pair: ImagePair) -> NDArray[np.uint32]:
        """The matches of a pair that one two-view geometry explains."""
        own, other = cameras[0][pair[0]], cameras[1][pair[1]]
        limit = settings.verify.max_error_px * float(
            np.sqrt(settings.pixel_scale(own) * settings.pixel_scale(other))
        )
        return colmap.estimate_two_view_geometry(
            own,
            keypoints[0][pair[0]],
            other,
            keypoints[1][pair[1]],
            matches[pair],
            settings.verify.model_copy(update={"max_error_px": limit}),
            seed=colmap.pair_seed(settings.seed, pair),
        ).inliers

    pairs = sorted(matches)
    found = zip(pairs, side_by_side(inliers, pairs), strict=True)
    return {pair: rows for pair, rows in found if len(rows)}


def _common_settings(
    source: Photos, target: Photos, names: Sequence[Sequence[str]]
) -> MatchingSettings:
    """The settings of the target. Raises UsageError if a folder's features are of another kind."""
    folders = {
        side.folders[name].root: side.folders[name]
        for side, own in zip((target, source), (names[1], names[0]), strict=True)
        for name in own
    }
    first, *others = folders.values()
    for other in others:
        if other.kind != first.kind:
            raise UsageError(
                f"{other.root} and {first.root} have different features: {shown(other.kind)} and "
                f"{shown(first.kind)}; run both with the same extract.local and extract.compact"
            )
    return first.settings


def _pairs(
    source: Photos, target: Photos, names: Sequence[list[str]], neighbors: int
) -> list[ImagePair]:
    """Pairs to match: all where they are few, else the most similar by global descriptors."""
    own, others = names
    if len(own) * len(others) <= FEW_PAIRS:
        return [(a, b) for a in own for b in others]
    reference = target.folders[others[0]]
    folders = {folder for side in (source, target) for folder in side.folders.values()}
    index = reference.index
    if index is None or {str(folder.global_kind) for folder in folders} != {
        str(reference.global_kind)
    }:
        raise UsageError(
            f"{len(own) * len(others):,} pairs of photos are too many to match, and the folders "
            "have no global descriptors of one kind to choose by; run them with the same "
            "extract.global, e.g. --set extract.global.name=gem"
        )
    described = [
        np.stack([side.folders[name].described(name, index) for name in side_names])
        for side, side_names in zip((source, target), names, strict=True)
    ]
    to_target, _ = nearest(described[0], described[1], neighbors)
    to_source, _ = nearest(described[1], described[0], neighbors)
    pairs = {(own[i], others[j]) for i, row in enumerate(to_target) for j in row if j >= 0}
    pairs |= {(own[i], others[j]) for j, row in enumerate(to_source) for i in row if i >= 0}
    return sorted(pairs)
