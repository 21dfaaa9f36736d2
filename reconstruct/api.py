"""The steps of structure from motion for those who compose them in Python, without a pipeline file.

    features = extract_features("photos", "out", "d2net", max_edge=1024)
    pairs = exhaustive_pairs(features.names)
    matches = match_features(features, pairs, "out")
    geometries = verify_pairs(features, matches, "out")
    database = build_database(features, geometries, "out/database.db")
    model = map_images(database, "photos", "out/sparse")

Each step runs the stage of the same purpose in the folder ``out``, so what is there and up to date
is not made again, and a pipeline file can go on in that folder.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reconstruct import colmap
from reconstruct.config import Section, validate
from reconstruct.datasets import Dataset
from reconstruct.datasets.cameras import CamerasConfig, CameraSpec
from reconstruct.datasets.folder import list_images
from reconstruct.errors import UsageError
from reconstruct.matching.config import MatchConfig
from reconstruct.matching.pairs import exhaustive_pairs, pose_pairs, sequential_pairs
from reconstruct.progress import Reporter
from reconstruct.stages import Context, Summary
from reconstruct.stages.database import Database
from reconstruct.stages.extract import Extract
from reconstruct.stages.extract_settings import ExtractConfig
from reconstruct.stages.map import Map
from reconstruct.stages.map_settings import MapConfig
from reconstruct.stages.match import Match
from reconstruct.stages.pair import GivenPairs
from reconstruct.stages.verify import Verify, VerifyConfig
from reconstruct.storage.pairs import ordered
from reconstruct.types import ImagePair, LocalFeatures, TwoViewGeometry
from reconstruct.workspace import Workspace


@dataclass(frozen=True, slots=True, eq=False)
class Features:
    """The local features of a folder of photos, read from disk as they are asked for."""

    stage: Extract

    @property
    def names(self) -> list[str]:
        """Sorted names of the photos that have features."""
        return self.stage.available()

    @property
    def skipped(self) -> dict[str, str]:
        """Photo that could not be read -> why."""
        return dict(self.stage.context.summary.skipped)

    def __getitem__(self, name: str) -> LocalFeatures:
        """The features of a photo. Raises ArtifactError if it has none."""
        return self.stage.features.load(name)


@dataclass(frozen=True, slots=True, eq=False)
class MatchedPairs:
    """The matches of pairs of photos, read from disk as they are asked for."""

    stage: Match

    @property
    def pairs(self) -> list[ImagePair]:
        """The matched pairs, sorted."""
        return self.stage.pairs()

    def __getitem__(self, pair: ImagePair) -> NDArray[np.uint32]:
        """(M, 2) keypoint indices, those of ``pair[0]`` first. Raises ArtifactError."""
        return self.stage.matches.load_from(*pair)

    def scores(self, pair: ImagePair) -> NDArray[np.float32]:
        """(M,) score of each match of a pair, larger is better. Raises ArtifactError."""
        return self.stage.matches.scores(ordered(*pair))


@dataclass(frozen=True, slots=True, eq=False)
class Geometries:
    """The two-view geometries of pairs of photos, read from disk as they are asked for."""

    stage: Verify

    @property
    def pairs(self) -> list[ImagePair]:
        """The pairs of which matches passed, sorted."""
        return self.stage.pairs()

    def __getitem__(self, pair: ImagePair) -> TwoViewGeometry:
        """The geometry of a pair whose smaller name comes first. Raises ArtifactError."""
        return self.stage.geometry(pair)


@dataclass(frozen=True, slots=True, eq=False)
class VerifiedDatabase:
    """COLMAP's database of verified matches, at ``path``."""

    stage: Database

    @property
    def path(self) -> Path:
        """The file."""
        return self.stage.artifact


def extract_features(
    images: Path | str,
    output: Path | str,
    extractor: str = "d2net",
    *,
    device: str = "auto",
    **settings: Any,
) -> Features:
    """Extract the local features of all photos of a folder.

    Args:
        images: Folder of photos, subfolders included.
        output: Output folder; features of earlier calls that are up to date stay.
        extractor: Name of an extractor: d2net, sift, superpoint ...
        device: auto, cpu, cuda or cuda:N.
        **settings: Settings of the extractor, as in ``extract.local`` of a pipeline file.

    Returns:
        The features, photo by photo.

    Raises:
        UsageError: No such folder, extractor or setting.
        DataError: No photo can be read.

    Example:
        >>> features = extract_features(photos, output, "sift", max_keypoints=1000)
        >>> features[features.names[0]].keypoints.shape[1]
        2
    """
    root = Path(images)
    names, skipped = list_images(root)
    context = Context(
        workspace=Workspace(output),
        dataset=Dataset(root=root, names=names, skipped=skipped),
        reporter=Reporter(-1),
        summary=Summary(skipped=dict(skipped)),
        device=device,
    )
    local = {"name": extractor, **settings}
    stage = Extract(context, validate(ExtractConfig, {"local": local}, "extract_features"))
    with _locked(context):
        stage.run()
    return Features(stage)


def match_features(
    features: Features, pairs: Sequence[ImagePair], output: Path | str, **settings: Any
) -> MatchedPairs:
    """Match the features of pairs of photos.

    Args:
        features: Features of the photos.
        pairs: Pairs of names, e.g. from `exhaustive_pairs`.
        output: Output folder; matches of earlier calls that are up to date stay.
        **settings: As in section ``match`` of a pipeline file.

    Returns:
        The matches, pair by pair.

    Raises:
        UsageError: A pair names a photo without features, or a setting is unknown.

    Example:
        >>> features = extract_features(photos, output, "sift")
        >>> matches = match_features(features, exhaustive_pairs(features.names), output, ratio=0.9)
        >>> matches[matches.pairs[0]].shape[1]
        2
    """
    known = set(features.names)
    for name in {name for pair in pairs for name in pair} - known:
        raise UsageError(f"match_features: {name!r} has no features; names: features.names")
    chosen = sorted({ordered(*pair) for pair in pairs})
    context = _inside(features.stage.context, output)
    config = validate(_MatchSection, {"match": settings}, "match_features").match
    stage = Match(context, config, features.stage, GivenPairs(features.stage, chosen))
    with _locked(context):
        stage.run()
    return MatchedPairs(stage)


def verify_pairs(
    features: Features,
    matches: MatchedPairs,
    output: Path | str,
    cameras: colmap.Camera | Path | str | None = None,
    **settings: Any,
) -> Geometries:
    """Estimate the two-view geometry of every matched pair.

    Args:
        features: Features of the photos.
        matches: Their matches.
        output: Output folder; geometries of earlier calls that are up to date stay.
        cameras: Known intrinsics: one camera for all, or a COLMAP model that has the photos by
            name; None: guessed from EXIF data.
        **settings: As in section ``verify`` of a pipeline file.

    Returns:
        The geometries, pair by pair.

    Raises:
        EstimationError: No pair has a geometry.

    Example:
        >>> features = extract_features(photos, output, "sift")
        >>> matches = match_features(features, exhaustive_pairs(features.names), output, ratio=0.9)
        >>> geometries = verify_pairs(features, matches, output, min_inliers=20)
        >>> len(geometries[geometries.pairs[0]].inliers) >= 20
        True
    """
    context = _inside(features.stage.context, output)
    config = validate(VerifyConfig, settings, "verify_pairs")
    stage = Verify(context, config, _camera_config(cameras), features.stage, matches.stage)
    with _locked(context):
        stage.run()
    return Geometries(stage)


def build_database(
    features: Features, geometries: Geometries, path: Path | str
) -> VerifiedDatabase:
    """Write COLMAP's database of keypoints, matches and two-view geometries.

    Args:
        features: Features of the photos.
        geometries: Two-view geometries of their pairs.
        path: The file, ``database.db`` in an output folder.

    Returns:
        The database, for `map_images`; COLMAP's own programs open the file.

    Raises:
        UsageError: The file has another name.
    """
    path = Path(path)
    context = _inside(features.stage.context, path.parent)
    if path != context.workspace.database:
        raise UsageError(f"{path}: expected the name database.db; give FOLDER/database.db")
    stage = Database(context, geometries.stage, geometries.stage)
    with _locked(context):
        stage.run()
    return VerifiedDatabase(stage)


def map_images(
    database: VerifiedDatabase,
    images: Path | str,
    output: Path | str,
    *,
    seed: int = 0,
    **settings: Any,
) -> colmap.Reconstruction:
    """Structure from motion from a database of verified matches.

    Args:
        database: What `build_database` wrote.
        images: Folder of the photos.
        output: Folder of the largest model, ``sparse`` in an output folder; further ones go to
            ``sparse_1`` and so on beside it.
        seed: Seed of COLMAP's mapper.
        **settings: As in section ``map`` of a pipeline file.

    Returns:
        The largest model, a pycolmap.Reconstruction.

    Raises:
        EstimationError: No model was found.
        UsageError: The folder has another name.

    Example:
        >>> features = extract_features(photos, output, "sift")
        >>> matches = match_features(features, exhaustive_pairs(features.names), output, ratio=0.9)
        >>> geometries = verify_pairs(features, matches, output)
        >>> database = build_database(features, geometries, f"{output}/database.db")
        >>> map_images(database, photos, f"{output}/sparse").num_reg_images()
        4
    """
    output = Path(output)
    context = _inside(database.stage.context, output.parent)
    context = replace(context, seed=seed, dataset=replace(context.dataset, root=Path(images)))
    if output != context.workspace.sparse:
        raise UsageError(f"{output}: expected the name sparse; give FOLDER/sparse")
    stage = Map(context, validate(MapConfig, settings, "map_images"), database.stage)
    with _locked(context):
        stage.run()
    return colmap.read_model(stage.artifact)


class _MatchSection(Section):
    match: MatchConfig


def _inside(context: Context, output: Path | str) -> Context:
    return replace(context, workspace=Workspace(output))


@contextmanager
def _locked(context: Context) -> Iterator[None]:
    colmap.set_verbosity(False)
    with context.workspace.lock():
        yield


def _camera_config(cameras: colmap.Camera | Path | str | None) -> CamerasConfig:
    if cameras is None:
        return CamerasConfig()
    if isinstance(cameras, Path | str):
        return CamerasConfig(cameras=str(cameras))
    found = colmap.intrinsics(cameras)
    return CamerasConfig(cameras=CameraSpec(model=found.model, params=found.params))


__all__ = [
    "Features",
    "Geometries",
    "MatchedPairs",
    "VerifiedDatabase",
    "build_database",
    "exhaustive_pairs",
    "extract_features",
    "map_images",
    "match_features",
    "pose_pairs",
    "sequential_pairs",
    "verify_pairs",
]
