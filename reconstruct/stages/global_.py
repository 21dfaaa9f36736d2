"""Global: the rows that extract left in global/ -> one descriptor an image, global/index.h5.

What needs the whole run is learned here, on images that are mapped, not on queries: the
vocabulary of VLAD and the whitening. Both are stored, so that a further photo can be described.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reconstruct.fingerprints import fingerprint
from reconstruct.retrieval.aggregation import Aggregation, kmeans, learn_whitening
from reconstruct.retrieval.describers import GlobalConfig, VladConfig
from reconstruct.retrieval.index import GlobalIndex, read_index, write_index
from reconstruct.retrieval.netvlad import NetVladConfig
from reconstruct.stages import Context, Plan
from reconstruct.stages.extract import Extract
from reconstruct.stages.whole import WholeStage
from reconstruct.types import FloatArray

VOCABULARY_ROWS = 100_000
WHITENING_IMAGES = 2_000
"""Largest number of images to learn from: a larger sample of 100,000 images adds nothing."""


def sampled(names: Sequence[str], count: int, seed: int) -> list[str]:
    """At most ``count`` of ``names``, drawn by ``seed``, in their order."""
    if len(names) <= count:
        return list(names)
    chosen = np.random.default_rng(seed).choice(len(names), count, replace=False)
    return [names[i] for i in sorted(chosen)]


class Global(WholeStage):
    """The stage; pairing asks it for descriptors."""

    name = "global"

    def __init__(self, context: Context, config: GlobalConfig, extract: Extract) -> None:
        super().__init__(context, context.workspace.global_ / "index.h5", [extract])
        self.config = config
        self.extract = extract

    def find_fingerprint(self) -> str | None:
        """Fingerprint over settings, the images, and which of them are queries."""
        fingerprints = self.extract.row_fingerprints()
        rows = [[name, fingerprints[name]] for name in self.extract.names()]
        learned_on = self.extract.to_map()
        seed = self.context.seed
        return fingerprint("index", self.config.identity(), seed, rows, learned_on)

    def plan(self) -> Plan:
        """Whether the index stands for the present images."""
        if self.extract.plan().todo:
            return Plan("waiting", "follows the images that extract brings")
        return super().plan()

    def make(self) -> None:
        """Write the index."""
        write_index(self.artifact, self._describe())

    def figures(self) -> dict[str, Any]:
        """How many images, and the length of a descriptor."""
        index = self.index()
        return {"images": len(index.names), "descriptor_length": index.descriptors.shape[1]}

    def index(self) -> GlobalIndex:
        """The committed index."""
        return read_index(self.artifact)

    def _describe(self) -> GlobalIndex:
        names = self.extract.available()
        learned_on = self.extract.to_map() or names
        aggregation = Aggregation(vocabulary=self._vocabulary(learned_on))
        if not isinstance(self.config, NetVladConfig) and len(learned_on) > 1:
            sample = sampled(learned_on, WHITENING_IMAGES, self.context.seed)
            vectors = np.stack([aggregation.vector(self._rows(name)) for name in sample])
            whitening = learn_whitening(vectors, self.config.dim, strength=self.config.whitening)
            aggregation = Aggregation(vocabulary=aggregation.vocabulary, whitening=whitening)
        with self.context.reporter.task(self.name, len(names), "images") as advance:
            descriptors = []
            for name in names:
                descriptors.append(aggregation(self._rows(name)))
                advance()
        return GlobalIndex(
            names=tuple(names), descriptors=np.stack(descriptors), aggregation=aggregation
        )

    def _vocabulary(self, names: Sequence[str]) -> FloatArray | None:
        if not isinstance(self.config, VladConfig):
            return None
        rng = np.random.default_rng(self.context.seed)
        share = max(1, VOCABULARY_ROWS // len(names))
        parts = []
        for name in sampled(names, VOCABULARY_ROWS, self.context.seed):
            rows = self._rows(name)
            chosen = rng.choice(len(rows), min(share, len(rows)), replace=False)
            parts.append(rows[np.sort(chosen)].astype(np.float32))
        return kmeans(np.concatenate(parts), self.config.clusters, seed=self.context.seed)

    def _rows(self, name: str) -> NDArray[Any]:
        return self.extract.rows.read(name)["rows"]
