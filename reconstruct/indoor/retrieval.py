"""Retrieval: which images of an RGB-D map each query is compared with, by global descriptors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from pydantic import Field

from reconstruct.config import Section
from reconstruct.errors import DataError
from reconstruct.retrieval.describers import GemConfig, GlobalConfig
from reconstruct.retrieval.nearest import nearest, neighbor_pairs
from reconstruct.stages import Context, Plan
from reconstruct.stages.extract import Extract, LocalConfig
from reconstruct.stages.global_ import Global
from reconstruct.types import ImagePair


class RetrievalSection(Section):
    """Section ``retrieval``: which images of the map a query is matched with, in all rows."""

    local: LocalConfig
    """The extractor whose pass global descriptors come from; rows with the same one share it."""
    global_: GlobalConfig = Field(GemConfig(), alias="global")
    """Global descriptors, as ``extract.global`` of other pipelines."""
    neighbors: int = Field(40, ge=1)
    """Images a query (InLoc: 100)."""


class Retrieval:
    """Which images of the map each query is matched with: a `match.PairSource`."""

    name = "retrieval"

    def __init__(self, context: Context, config: RetrievalSection, extract: Extract) -> None:
        self.context = context
        self.config = config
        self.extract = extract
        self.global_ = Global(extract.context, config.global_, extract)
        self._pairs: tuple[str, list[ImagePair]] | None = None

    def plan(self) -> Plan:
        """Whether global descriptors are up to date."""
        found = self.extract.plan()
        return found if found.todo else self.global_.plan()

    def discard(self) -> None:
        """Drop features and global descriptors."""
        self.global_.discard()
        self.extract.discard()

    def run(self) -> None:
        """Bring the global descriptors up to date."""
        self.extract.run()
        self.global_.run()
        if not self.pairs():
            raise DataError(
                f"{self.context.dataset.root}: no readable query or no readable map image"
            )
        figures = self.extract.context.summary.figures
        self.context.summary.figures[self.name] = {
            "images_of_map": len(self.extract.to_map()),
            "queries": len(self.context.dataset.queries),
            "pairs": len(self.pairs()),
            "extracted_now": figures[self.extract.name]["extracted_now"],
        }

    def up_to_date(self) -> bool:
        """Whether `pairs` stands for the present images."""
        return self.global_.up_to_date()

    def choose(self, names: Sequence[str]) -> list[ImagePair] | None:
        """The pairs within ``names``; None before there are global descriptors."""
        known = set(names)
        return [p for p in self.pairs() if known.issuperset(p)] if self.up_to_date() else None

    def pairs(self) -> list[ImagePair]:
        """All pairs."""
        value = self.global_.fingerprint()
        if self._pairs is None or self._pairs[0] != value:
            index, rgbd = self.global_.index(), self.context.dataset.rgbd
            available = set(self.extract.available())
            mapped = [name for name in (rgbd.names if rgbd else ()) if name in available]
            asked = [q.name for q in self.context.dataset.queries if q.name in available]
            chosen = (index.select(asked), index.select(mapped)) if asked and mapped else None
            found = nearest(*chosen, self.config.neighbors)[0] if chosen else np.zeros((0, 0), int)
            self._pairs = value, neighbor_pairs(asked if chosen else [], mapped, found)
        return self._pairs[1]


@dataclass(frozen=True, slots=True)
class RetrievedPairs:
    """The retrieved pairs of which both images have features of one extractor."""

    retrieval: Retrieval
    extract: Extract

    def choose(self, names: Sequence[str]) -> list[ImagePair] | None:
        """Those within ``names``."""
        return self.retrieval.choose(names)

    def pairs(self) -> list[ImagePair]:
        """Those that can be matched now."""
        known = set(self.extract.available())
        return [pair for pair in self.retrieval.pairs() if known.issuperset(pair)]

    def up_to_date(self) -> bool:
        """Whether the retrieval stands for the present images."""
        return self.retrieval.up_to_date()
