"""From photos to COLMAP models and camera poses, around D2-Net local features.

``reconstruct.run`` runs a pipeline file, ``extend`` adds photos to what it left, ``join`` merges
models, ``compare`` runs several methods over the same photos; ``extract_features``,
``match_features``, ``verify_pairs``, ``build_database`` and ``map_images`` are the steps for those
who compose them. ``load_extractor`` gives an extractor for single images, ``match`` the mutual
nearest neighbours of two sets of descriptors, ``localize`` the pose of one photo in a finished map,
``plot_keypoints``, ``plot_matches`` and ``plot_model``
pictures for notebooks.
Names are imported when first used: ``import reconstruct`` itself loads neither torch nor pycolmap.
"""

from __future__ import annotations

import importlib
import os
from typing import TYPE_CHECKING, Any

# onnxruntime 1.29 and newer tell their makers what is run, and give the machine a number, unless
# this is set before they are loaded.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

if TYPE_CHECKING:
    from reconstruct.api import Features as Features
    from reconstruct.api import Geometries as Geometries
    from reconstruct.api import build_database as build_database
    from reconstruct.api import extract_features as extract_features
    from reconstruct.api import map_images as map_images
    from reconstruct.api import match_features as match_features
    from reconstruct.api import verify_pairs as verify_pairs
    from reconstruct.comparison.compare import compare as compare
    from reconstruct.errors import ReconstructError as ReconstructError
    from reconstruct.extending import extend as extend
    from reconstruct.features import load_extractor as load_extractor
    from reconstruct.images import read_image as read_image
    from reconstruct.joining import join as join
    from reconstruct.localization.localizer import Localizer as Localizer
    from reconstruct.localization.localizer import localize as localize
    from reconstruct.matching.mutual_nn import match as match
    from reconstruct.matching.pairs import exhaustive_pairs as exhaustive_pairs
    from reconstruct.matching.pairs import pose_pairs as pose_pairs
    from reconstruct.matching.pairs import sequential_pairs as sequential_pairs
    from reconstruct.pipeline.plan import plan as plan
    from reconstruct.pipeline.run import run as run
    from reconstruct.report.plots import plot_keypoints as plot_keypoints
    from reconstruct.report.plots import plot_matches as plot_matches
    from reconstruct.report.plots import plot_model as plot_model
    from reconstruct.stages.outcome import Run as Run
    from reconstruct.storage.features import open_features as open_features
    from reconstruct.storage.matches import open_matches as open_matches
    from reconstruct.types import Intrinsics as Intrinsics
    from reconstruct.types import LocalFeatures as LocalFeatures
    from reconstruct.types import PoseEstimate as PoseEstimate
    from reconstruct.types import TwoViewGeometry as TwoViewGeometry

_HOMES = {
    "Features": "reconstruct.api",
    "Geometries": "reconstruct.api",
    "build_database": "reconstruct.api",
    "extract_features": "reconstruct.api",
    "map_images": "reconstruct.api",
    "match_features": "reconstruct.api",
    "verify_pairs": "reconstruct.api",
    "extend": "reconstruct.extending",
    "compare": "reconstruct.comparison.compare",
    "ReconstructError": "reconstruct.errors",
    "join": "reconstruct.joining",
    "load_extractor": "reconstruct.features",
    "read_image": "reconstruct.images",
    "Localizer": "reconstruct.localization.localizer",
    "localize": "reconstruct.localization.localizer",
    "exhaustive_pairs": "reconstruct.matching.pairs",
    "pose_pairs": "reconstruct.matching.pairs",
    "sequential_pairs": "reconstruct.matching.pairs",
    "match": "reconstruct.matching.mutual_nn",
    "plan": "reconstruct.pipeline.plan",
    "run": "reconstruct.pipeline.run",
    "plot_keypoints": "reconstruct.report.plots",
    "plot_matches": "reconstruct.report.plots",
    "plot_model": "reconstruct.report.plots",
    "Run": "reconstruct.stages.outcome",
    "open_features": "reconstruct.storage.features",
    "open_matches": "reconstruct.storage.matches",
    "Intrinsics": "reconstruct.types",
    "LocalFeatures": "reconstruct.types",
    "PoseEstimate": "reconstruct.types",
    "TwoViewGeometry": "reconstruct.types",
}

__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'reconstruct' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return [*globals(), *_HOMES]
