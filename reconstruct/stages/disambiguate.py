"""Disambiguate: verified pairs -> disambiguated.json, the pairs without those that only look alike.

A first model is made of all pairs, in a folder that goes afterwards: where it folds, photos
contradict each other (`reconstruct.matching.disambiguation`), and look different.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from reconstruct import colmap
from reconstruct.atomic import TEMPORARY, atomic_path, remove
from reconstruct.config import NotIdentity
from reconstruct.errors import ArtifactError
from reconstruct.fingerprints import fingerprint
from reconstruct.matching.appearance import Appearance, appearance
from reconstruct.matching.conflicts import View
from reconstruct.matching.disambiguation import Disambiguation, PlacesConfig, disambiguate
from reconstruct.stages import Context, inner_context
from reconstruct.stages.database import Database
from reconstruct.stages.map import Map
from reconstruct.stages.map_settings import MapConfig
from reconstruct.stages.verify import Verified, Verify
from reconstruct.stages.whole import WholeStage
from reconstruct.storage.matches import pair_key
from reconstruct.types import ImagePair, TwoViewGeometry
from reconstruct.workspace import Workspace

KEPT = 128
"""Photos that stay in memory while they are compared, 1 MB each."""


class DisambiguateConfig(PlacesConfig):
    """Section ``disambiguate``."""

    threads: Annotated[int, NotIdentity] = Field(-1, ge=-1)
    """Of the first mapping; -1: all cores."""


class Disambiguate(WholeStage):
    """The stage; it stands for the verified pairs without those that it removes."""

    name = "disambiguate"

    def __init__(
        self, context: Context, config: DisambiguateConfig, verify: Verify, verified: Verified
    ) -> None:
        super().__init__(context, context.workspace.disambiguated, [verified])
        self.config = config
        self.verify = verify
        self.verified = verified
        self._draft = Workspace(context.workspace.root / f"draft{TEMPORARY}")

    @property
    def refined(self) -> bool:
        """See `Verified`."""
        return self.verified.refined

    def find_fingerprint(self) -> str | None:
        """Fingerprint over the settings, and all that a model is made of."""
        before = Database(self.context, self.verify, self.verified).fingerprint()
        if before is None:
            return None
        settings = self.config.identity()
        return fingerprint("disambiguated by looks", settings, self.context.seed, before)

    def make(self) -> None:
        """Write which photos are of one place, and which pairs are not."""
        remove(self._draft.root)
        try:
            models, pairs = self._first_models(), self.verified.pairs()
            found = disambiguate(models, pairs, self.config, self._look())
        finally:
            remove(self._draft.root)
        with atomic_path(self.artifact) as temporary:
            temporary.write_text(_as_text(found), encoding="utf-8")

    def _first_models(self) -> list[colmap.Reconstruction]:
        self._draft.root.mkdir(parents=True)
        inner = inner_context(self.context, self._draft)
        database = Database(inner, self.verify, self.verified)
        database.make()
        settings = MapConfig.model_validate({"threads": self.config.threads})
        Map(inner, settings, database).make()
        return [colmap.read_model(path) for path in self._draft.models()]

    def _look(self) -> Callable[[str, View], Appearance]:
        photos = self.verify.extract.photos()

        @lru_cache(KEPT)
        def look(name: str, view: View) -> Appearance:
            return appearance(view, photos.read(name))

        return look

    def found(self) -> Disambiguation:
        """What `make` wrote. Raises ArtifactError if it is damaged."""
        return read_disambiguation(self.workspace)

    def figures(self) -> dict[str, Any]:
        """How many places there are, and what was removed."""
        found = self.found()
        return {
            "places": len(found.places),
            "pairs_in_conflict": len(found.conflicts),
            "pairs_removed": len(found.removed),
        }

    def fingerprints(self) -> Mapping[str, str] | None:
        """Pair -> fingerprint of its geometry, for the pairs that stay."""
        before = self.verified.fingerprints()
        if before is None or not self.artifact_current():
            return None
        gone = {pair_key(pair) for pair in self.found().removed}
        return {key: value for key, value in before.items() if key not in gone}

    def pairs(self) -> list[ImagePair]:
        """Sorted pairs of which at least one match passed, and that show one place."""
        gone = set(self.found().removed)
        return [pair for pair in self.verified.pairs() if pair not in gone]

    def geometry(self, pair: ImagePair) -> TwoViewGeometry:
        """The geometry of a pair."""
        return self.verified.geometry(pair)

    def matches(self, pair: ImagePair) -> NDArray[np.uint32]:
        """(M, 2) matches that were verified."""
        return self.verified.matches(pair)

    def keypoints(self, name: str) -> NDArray[np.float32]:
        """(N, 2) keypoints of an image that its geometries were estimated from."""
        return self.verified.keypoints(name)

    def pixel_scale(self, name: str) -> float:
        """See `Verified`."""
        return self.verified.pixel_scale(name)


def _as_text(found: Disambiguation) -> str:
    content = {
        "places": found.places,
        "conflicts": [[*pair, round(value, 3)] for pair, value in found.conflicts.items()],
        "removed": found.removed,
    }
    return json.dumps(content, indent=1, ensure_ascii=False) + "\n"


def read_disambiguation(workspace: Workspace) -> Disambiguation:
    """What the stage left in an output folder. Raises ArtifactError if it cannot be read."""
    path = workspace.disambiguated
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return Disambiguation(
            places=[list(map(str, names)) for names in content["places"]],
            conflicts={(str(a), str(b)): float(value) for a, b, value in content["conflicts"]},
            removed=[(str(a), str(b)) for a, b in content["removed"]],
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ArtifactError(
            f"{path}: cannot be read ({error}); run again with --force disambiguate"
        ) from error
