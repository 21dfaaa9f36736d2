"""``hloc``: features.h5 and matches.h5 as hloc stores them.

    features.h5  NAME/{keypoints (N, 2), descriptors (D, N), scores (N,), image_size (2,)}
    matches.h5   NAME0/NAME1/{matches0 (N,), matching_scores0 (N,)}, "/" in names as "-"

Keypoints count from the first pixel's centre. Numbers are float32 and int32, where hloc itself has
float16 and int16, so that nothing is rounded or wraps.
"""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
from numpy.typing import NDArray

from reconstruct import colmap
from reconstruct.atomic import reserve
from reconstruct.errors import UsageError
from reconstruct.export.result import Result
from reconstruct.features.compaction import expand
from reconstruct.storage.features import FeatureStore
from reconstruct.storage.matches import MatchStore, key_pair, pair_key
from reconstruct.types import FloatArray, ImagePair
from reconstruct.workspace import Workspace


def write(result: Result, target: Path) -> None:
    """Write both files. Raises UsageError if there are no features, or for names that collide."""
    workspace = result.workspace
    features, matches = FeatureStore(workspace.features), MatchStore(workspace.matches)
    names = sorted(features.fingerprints())
    if not names:
        raise UsageError(f"{workspace.root}: no features here; run the pipeline first")
    stored = [*workspace.features.iterdir(), *workspace.matches.glob("*")]
    # Compact descriptors grow to four times their size. HDF5 would crash on a full disk.
    reserve(target.parent, 5 * sum(file.stat().st_size for file in stored))
    target.mkdir()
    counts = _write_features(target / "features.h5", features, names, _Refined(workspace))
    _write_matches(target / "matches.h5", matches, counts, workspace.root)


def _write_features(
    path: Path, features: FeatureStore, names: list[str], refined: _Refined
) -> dict[str, int]:
    """Number of features of each image."""
    counts = {}
    with h5py.File(path, "w") as file:
        for name in names:
            found = features.load(name)
            counts[name] = len(found)
            group = file.create_group(name)
            group["keypoints"] = refined.keypoints(name, found.keypoints) - np.float32(0.5)
            group["descriptors"] = expand(found.descriptors).T
            group["scores"] = found.scores
            group["image_size"] = np.asarray(found.image_size)
    return counts


class _Refined:
    """Keypoints where the model has them, else where the database has them: refinement moves them.

    Both keep the features' order; the second pass of mapping adds further ones at the end, which
    have no descriptor.
    """

    def __init__(self, workspace: Workspace) -> None:
        self.root = workspace.root
        database = workspace.database
        self._database = colmap.database_keypoints(database) if database.is_file() else {}
        mapped = workspace.sparse.is_dir()
        self._tracks = colmap.Tracks(colmap.read_model(workspace.sparse)) if mapped else None
        self._mapped = set(self._tracks.names) if self._tracks else set()

    def keypoints(self, name: str, extracted: FloatArray) -> FloatArray:
        """(N, 2) COLMAP pixels of an image, given its extracted ones."""
        found: NDArray[np.generic] = self._database.get(name, extracted)
        if self._tracks is not None and name in self._mapped:
            found = self._tracks.keypoints(name)
        if len(found) < len(extracted):
            raise UsageError(
                f"{self.root}: features of {name} changed since it was mapped; run the pipeline to "
                "its end first"
            )
        return np.asarray(found[: len(extracted)], np.float32)


def _write_matches(path: Path, matches: MatchStore, counts: dict[str, int], root: Path) -> None:
    with h5py.File(path, "w") as file:
        for pair in sorted(key_pair(key) for key in matches.fingerprints()):
            rows = matches.load(pair).astype(np.int64)
            if (rows >= [counts.get(name, 0) for name in pair]).any():
                raise UsageError(
                    f"{root}: features changed since {pair} was matched; run the "
                    "pipeline to its end first"
                )
            partner = np.full(counts[pair[0]], -1, np.int32)
            partner[rows[:, 0]] = rows[:, 1]
            scores = np.zeros(len(partner), np.float32)
            scores[rows[:, 0]] = _scores(matches, pair, len(rows))
            key = "/".join(name.replace("/", "-") for name in pair)
            if key in file:
                raise UsageError(
                    f"hloc writes {pair} and another pair of images as {key!r}: rename one"
                )
            group = file.create_group(key)
            group["matches0"] = partner
            group["matching_scores0"] = scores


def _scores(matches: MatchStore, pair: ImagePair, count: int) -> FloatArray:
    """(M,) scores of a pair's matches; 1 for those made before scores were kept."""
    if "scores" not in matches.fields(pair_key(pair)):
        return np.ones(count, np.float32)
    return np.asarray(matches.scores(pair), np.float32)
