"""Turn: photos that match none of the others, tried in the three other turns -> turns/.

    turns/tried/part-*.h5   photo -> inliers that join it, turned by 0 to 3 quarters
    turns/found.json        the photos that are turned from now on

D2-Net is not invariant to rotation, so a photo that lies on its side, and has lost the EXIF tag
that says so, matches nothing, or hardly anything: some pairs pass verification by chance, with few
inliers. Photos are joined by pairs with `JOINING` inliers, and so fall into groups. One outside the
largest is extracted again in its other turns, and matched with those of that group with which it is
paired. A turn is taken if it has more inliers there than the photo has now in all pairs that join.
The stages before are then run again for the photos that were turned, and the rest is tried again,
as the group may have grown, until no more join it.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from reconstruct import features, matching
from reconstruct.atomic import remove
from reconstruct.errors import ConfigError
from reconstruct.fingerprints import fingerprint
from reconstruct.matching import Matcher
from reconstruct.matching.config import MatchConfig
from reconstruct.parallel import side_by_side
from reconstruct.stages import Context
from reconstruct.stages.extract import Extract
from reconstruct.stages.extract_worker import ExtractWorker
from reconstruct.stages.keyed import KeyedStage, Result, Wanted
from reconstruct.stages.match import Match
from reconstruct.stages.verify import Estimator, Verify
from reconstruct.stages.whole import WholeStage
from reconstruct.storage.cache import Cache, Sized
from reconstruct.storage.features import FeatureStore
from reconstruct.storage.matches import key_pair
from reconstruct.storage.pairs import ordered
from reconstruct.storage.shard_file import Record
from reconstruct.storage.shards import ShardStore
from reconstruct.storage.turns import FoundTurn, read_turns, write_turns
from reconstruct.types import ImagePair, LocalFeatures

logger = logging.getLogger(__name__)

JOINING = 30
"""Inliers of a pair that joins its photos: as many as COLMAP's mapper asks for to place a photo."""


class Turn(KeyedStage):
    """The stage. again: the stages up to `verify`, which are run again for photos that turn."""

    name = "turn"
    unit = "photos"
    shard = (4, 16)
    keeps_unwanted = False

    def __init__(
        self,
        context: Context,
        extract: Extract,
        match: Match,
        verify: Verify,
        again: Sequence[KeyedStage | WholeStage],
    ) -> None:
        super().__init__(context, ShardStore(context.workspace.turns / "tried"), [verify])
        if isinstance(extract.extractor, features.ReadsFiles):
            raise ConfigError(
                "extract.orientation: search extracts photos again, which it cannot where features "
                "are read from files; use exif or stored"
            )
        self.extract = extract
        self.match = match
        self.verify = verify
        self.again = tuple(again)

    def find_fingerprints(self) -> dict[str, str] | None:
        """Photo outside the largest group -> fingerprint over the settings and all features that it
        is to be compared with."""
        if not self.verify.current():
            return None
        local, cameras = self.extract.known_fingerprints(), self.verify.cameras.identities
        matcher = matching.create(self.match.config, self.context.device)
        settings = [matcher.identity(), self.verify.settings()]
        return {
            name: fingerprint("turns", settings, [[n, local[n], cameras[n]] for n in (name, *near)])
            for name, near in self._partners().items()
        }

    def _partners(self) -> dict[str, list[str]]:
        """Photo outside the largest group -> those of the group with which it is paired."""
        names = self.extract.to_map()
        counts = self._joining()
        group = largest_group(names, [pair for pair in self.verify.pairs() if pair in counts])
        partners: dict[str, list[str]] = {}
        for first, second in self.match.pairs():
            for name, other in ((first, second), (second, first)):
                if name not in group and other in group:
                    partners.setdefault(name, []).append(other)
        mapped = set(names)  # a query is no part of it
        return {name: sorted(near) for name, near in sorted(partners.items()) if name in mapped}

    def worker(self) -> TurnWorker:
        """Tries photos in other turns."""
        return TurnWorker(
            extract=self.extract.worker(),
            unturned=self.extract.unturned,
            present=self.extract.turned(),
            partners=self._partners(),
            features=self.extract.features,
            config=self.match.config,
            device=self.context.device,
            estimate=self.verify.estimator(),
        )

    def complete(self) -> bool:
        """Whether all photos that match nothing were tried, and none waits to be turned."""
        return super().complete() and not self._found()

    def run(self) -> None:
        """Try photos, and turn them, until no more join the largest group."""
        if self.settled and self.current():
            return
        super().run()
        while found := self._found():
            write_turns(self.extract.found_turns, read_turns(self.extract.found_turns) | found)
            for stage in self.again:
                stage.renew()
            for stage in self.again:
                stage.run()
            self.renew()
            super().run()

    def _found(self) -> dict[str, FoundTurn]:
        """Photos that are joined by more inliers in another turn, and that turn."""
        found, joining = {}, self._joining()
        for name in sorted(set(self.known_fingerprints()) - self.missing()):
            with self.store.decoding(name):
                inliers = self.store.read(name, only="inliers")["inliers"].reshape(4)
            best = int(inliers.argmax())
            now = sum(count for pair, count in joining.items() if name in pair)
            if inliers[best] > now:
                found[name] = FoundTurn(self.extract.unturned[name], best)
                message = "turn: %s, turned %d degrees clockwise, has %d inliers, before %d"
                logger.info(message, name, 90 * best, inliers[best], now)
        return found

    def _joining(self) -> dict[ImagePair, int]:
        """The pairs that join photos as these are turned now, with their inliers."""
        counts = self.verify.geometries.lengths("inliers")
        keys = self.verify.known_fingerprints()
        return {key_pair(k): counts[k] for k in keys if counts.get(k, 0) >= JOINING}

    def figures(self, made: int) -> dict[str, Any]:
        """How many photos match none of the others in any turn, and which were turned."""
        turned = self.extract.turned()
        return {
            "tried_now": made,
            "without_a_match": len(self.known_fingerprints()),
            "turned": [f"{name} ({90 * turns}° clockwise)" for name, turns in turned.items()],
        }

    def discard(self) -> None:
        """Forget the turns too."""
        super().discard()
        remove(self.extract.found_turns)


def largest_group(names: Sequence[str], pairs: Sequence[ImagePair]) -> set[str]:
    """The largest set of names that pairs join directly or through others; of equally large ones
    that of the first name. ``pairs`` are of names."""
    if not names:
        return set()
    number = {name: i for i, name in enumerate(names)}
    joined = [(number[a], number[b]) for a, b in pairs]
    rows, columns = np.array(joined, np.int64).reshape(-1, 2).T
    graph = coo_matrix((np.ones(len(rows)), (rows, columns)), shape=(len(names), len(names)))
    _, group = connected_components(graph, directed=False)
    largest = int(np.bincount(group).argmax())
    return {name for name, own in zip(names, group, strict=True) if own == largest}


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TurnWorker:
    """Photos -> by how many inliers they are joined in each turn that they are not in.

    Args:
        extract: Extracts photos.
        unturned: Photo -> fingerprint of its features without a turn.
        present: Photo -> quarter turns that it has been turned by, if any.
        partners: Photo -> those that it is matched with.
        features: Their features.
        config: Settings of the matcher.
        device: Of the matcher.
        estimate: Finds the geometry of a pair.
    """

    extract: ExtractWorker
    unturned: Mapping[str, str]
    present: Mapping[str, int]
    partners: Mapping[str, Sequence[str]]
    features: FeatureStore
    config: MatchConfig
    device: str
    estimate: Estimator

    def __call__(self, wanted: Sequence[Wanted]) -> Iterator[Result]:
        """Results for photos."""
        matcher = matching.create(self.config, self.device)
        prepared = Cache[Sized](
            lambda name: matcher.prepare(self.features.load(name, fields=matcher.reads)),
            self.config.cache_mb << 20,
        )
        for item in wanted:
            yield self._tried(item, matcher, prepared)

    def _tried(self, item: Wanted, matcher: Matcher, prepared: Cache[Sized]) -> Result:
        inliers = np.zeros(4, np.int64)
        for turns in {0, 1, 2, 3} - {self.present.get(item.key, 0)}:
            found = self.extract.turned(item.key, self.unturned[item.key], turns)
            if isinstance(found, Result):
                return found
            inliers[turns] = self._inliers(item.key, found, matcher, prepared)
        return Result(item.key, (Record(item.key, item.fingerprint, {"inliers": inliers}),))

    def _inliers(
        self, name: str, local: LocalFeatures, matcher: Matcher, prepared: Cache[Sized]
    ) -> int:
        """Inliers over all pairs that join a photo with its partners."""
        own = matcher.prepare(local)

        def verified(job: tuple[str, Sized]) -> int:
            other, its = job
            pair = ordered(name, other)
            first, second = (own, its) if pair[0] == name else (its, own)
            keypoints = {name: local.keypoints, other: self.features.keypoints(other)}
            matches = matcher.match(first, second).indices
            inputs = keypoints[pair[0]], keypoints[pair[1]], matches
            return len(self.estimate(pair, inputs).inliers)

        jobs = ((other, prepared[other]) for other in self.partners[name])
        return sum(count for count in side_by_side(verified, jobs) if count >= JOINING)
