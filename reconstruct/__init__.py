"""From photos to COLMAP models and camera poses, around D2-Net local features.

``reconstruct.run`` runs a pipeline file, ``reconstruct.load_extractor`` gives an extractor for
single images, ``reconstruct.match`` the mutual nearest neighbours of two sets of descriptors,
``reconstruct.localize`` the pose of one photo in a finished map.
Names are imported when first used: ``import reconstruct`` itself loads neither torch nor pycolmap.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from reconstruct.errors import ReconstructError as ReconstructError
    from reconstruct.features import load_extractor as load_extractor
    from reconstruct.localization.localizer import Localizer as Localizer
    from reconstruct.localization.localizer import localize as localize
    from reconstruct.matching.mutual_nn import match as match
    from reconstruct.pipeline import plan as plan
    from reconstruct.pipeline import run as run
    from reconstruct.stages.outcome import Run as Run
    from reconstruct.types import Intrinsics as Intrinsics
    from reconstruct.types import LocalFeatures as LocalFeatures
    from reconstruct.types import PoseEstimate as PoseEstimate

_HOMES = {
    "ReconstructError": "reconstruct.errors",
    "Intrinsics": "reconstruct.types",
    "LocalFeatures": "reconstruct.types",
    "Localizer": "reconstruct.localization.localizer",
    "PoseEstimate": "reconstruct.types",
    "Run": "reconstruct.stages.outcome",
    "load_extractor": "reconstruct.features",
    "localize": "reconstruct.localization.localizer",
    "match": "reconstruct.matching.mutual_nn",
    "plan": "reconstruct.pipeline",
    "run": "reconstruct.pipeline",
}

__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'reconstruct' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return [*globals(), *_HOMES]
