"""Retrieval: which images of an RGB-D map each query is compared with, by global descriptors."""

from __future__ import annotations

from dataclasses import dataclass

from pydantic import Field

from reconstruct.config import Section
from reconstruct.errors import DataError
from reconstruct.retrieval.describers import GemConfig, GlobalConfig
from reconstruct.retrieval.nearest import nearest, neighbor_pairs
from reconstruct.stages import Context, Plan
from reconstruct.stages.extract import Extract
from reconstruct.stages.extract_settings import LocalConfig
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
    """Which images of the map each query is matched with.

    A composite of two stages: the features that global descriptors come from, and the descriptors.
    """

    name = "retrieval"

    def __init__(self, context: Context, config: RetrievalSection, extract: Extract) -> None:
        self.context = context
        self.config = config
        self.extract = extract
        self.global_ = Global(extract.context, config.global_, extract)
        self._pairs: list[ImagePair] | None = None

    @property
    def made(self) -> int:
        """How many images were described in this run."""
        return self.extract.made

    def plan(self) -> Plan:
        """Whether global descriptors are up to date."""
        extract = self.extract.plan()
        return extract if extract.todo else self.global_.plan()

    def current(self) -> bool:
        """Whether `pairs` stands for the present images."""
        return self.global_.current()

    def fingerprint_of_all(self) -> str | None:
        """Fingerprint over the global descriptors."""
        return self.global_.fingerprint_of_all()

    def settle(self) -> None:
        """Take what is stored as it is."""
        self.extract.settle()
        self.global_.settle()

    def discard(self) -> None:
        """Drop features and global descriptors."""
        self.global_.discard()
        self.extract.discard()

    def run(self) -> None:
        """Bring the global descriptors up to date. Raises DataError if there is no pair."""
        self.extract.run()
        self.global_.run()
        pairs = self.pairs() or []
        if not pairs:
            raise DataError(
                f"{self.context.dataset.root}: no readable query or no readable map image"
            )
        self.context.summary.figures[self.name] = {
            "images_of_map": len(self.extract.to_map()),
            "queries": len(self.context.dataset.queries),
            "pairs": len(pairs),
        }

    def pairs(self) -> list[ImagePair] | None:
        """All pairs, sorted; None before there are global descriptors."""
        if not self.current():
            return None
        if self._pairs is None:
            index, rgbd = self.global_.index(), self.context.dataset.rgbd
            available = set(self.extract.names())
            mapped = [name for name in (rgbd.names if rgbd else ()) if name in available]
            asked = [q.name for q in self.context.dataset.queries if q.name in available]
            if asked and mapped:
                vectors = index.select(asked), index.select(mapped)
                neighbors, _ = nearest(*vectors, self.config.neighbors)
                self._pairs = neighbor_pairs(asked, mapped, neighbors)
            else:
                self._pairs = []
        return self._pairs


@dataclass(frozen=True, slots=True)
class RetrievedPairs:
    """The retrieved pairs of which both images have features of one extractor."""

    retrieval: Retrieval
    extract: Extract
    name: str = "retrieval"

    def pairs(self) -> list[ImagePair] | None:
        """Those pairs; None before there are global descriptors."""
        pairs = self.retrieval.pairs()
        known = set(self.extract.names())
        return None if pairs is None else [pair for pair in pairs if known.issuperset(pair)]

    def current(self) -> bool:
        """Whether the retrieval stands for the present images."""
        return self.retrieval.current()
