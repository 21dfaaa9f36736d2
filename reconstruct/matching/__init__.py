"""Matching: which keypoints of two images show the same point.

Matchers stand behind one protocol. A new one is one file (its settings, a `MatcherConfig` with
``method: Literal["..."]``, and its class) and one line in `MATCHERS`. Modules are imported when
they are asked for.
"""

from __future__ import annotations

import importlib
from typing import Annotated, Any, Protocol

from pydantic import Field

from reconstruct.config import NotIdentity, Section
from reconstruct.errors import UnknownNameError
from reconstruct.storage.cache import Sized
from reconstruct.types import LocalFeatures, Matches

MATCHERS: dict[str, tuple[str, str, str]] = {
    # method: (module, settings, class)
    "dense": ("reconstruct.matching.dense", "DenseMatcherConfig", "Dense"),
    "lightglue": ("reconstruct.matching.lightglue", "LightGlueConfig", "LightGlue"),
    "mutual_nn": ("reconstruct.matching.mutual_nn", "MutualNNConfig", "MutualNN"),
}


class Matcher(Protocol):
    """From the features of two images to `Matches`, in two steps: what can be done for an image
    alone is done once, however many pairs it stands in."""

    reads: tuple[str, ...]
    """The arrays of `LocalFeatures` that are looked at; the others may be left without rows."""

    def prepare(self, features: LocalFeatures) -> Sized:
        """What `match` needs of an image, on the matcher's device."""

    def match(self, first: Any, second: Any) -> Matches:
        """The matches of two prepared images. Both have to come from this matcher.

        May be called from several threads at once.
        """

    def identity(self) -> dict[str, Any]:
        """What decides the result (settings, content hash of weights); JSON types only."""


class MatcherConfig(Section):
    """What the settings of all matchers share."""

    method: str
    """Name of the matcher."""
    cache_mb: Annotated[int, NotIdentity] = Field(2048, ge=1)
    """Memory for prepared images that wait for their next pair."""


def config_class(method: str) -> type[MatcherConfig]:
    """The settings of matcher ``method``. Raises UnknownNameError with the valid names."""
    module, config, _ = _entry(method)
    result: type[MatcherConfig] = getattr(importlib.import_module(module), config)
    return result


def create(config: MatcherConfig, device: str = "auto") -> Matcher:
    """The matcher that ``config`` describes."""
    module, _, cls = _entry(config.method)
    matcher: Matcher = getattr(importlib.import_module(module), cls)(config, device=device)
    return matcher


def _entry(method: str) -> tuple[str, str, str]:
    if method not in MATCHERS:
        raise UnknownNameError("matcher", method, MATCHERS)
    return MATCHERS[method]
