"""Database: keypoints, matches and two-view geometries -> database.db, for COLMAP."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from reconstruct import colmap
from reconstruct.atomic import atomic_path, reserve
from reconstruct.fingerprints import fingerprint
from reconstruct.stages import Context
from reconstruct.stages.map_cameras import MapCameras
from reconstruct.stages.verify import Verified, Verify, check_indices
from reconstruct.stages.whole import WholeStage
from reconstruct.storage.matches import key_pair, pair_key


class Database(WholeStage):
    """The stage. verified: the geometries that it holds, those after refinement if there is any."""

    name = "database"

    def __init__(self, context: Context, verify: Verify, verified: Verified) -> None:
        super().__init__(context, context.workspace.database, [verified])
        self.verify = verify
        self.verified = verified

    @property
    def cameras(self) -> MapCameras:
        """Cameras of the images in the database."""
        return self.verify.cameras

    @property
    def rigs(self) -> colmap.Rigs | None:
        """The rigs that the database has: those whose poses are given.

        Others are estimated from a first model. Where the poses of photos are given, rigs add
        nothing.
        """
        dataset = self.context.dataset
        known = dataset.rigs is not None and dataset.rigs.calibrated and dataset.poses is None
        return dataset.rigs if known else None

    def find_fingerprint(self) -> str | None:
        """Fingerprint over the images, their cameras, and all geometries."""
        geometries = self.verified.fingerprints()
        if geometries is None:
            return None
        features = self.verify.extract.known_fingerprints()
        identities = self.cameras.identities
        images = [[n, features[n], camera] for n, camera in sorted(identities.items())]
        gps = self.context.dataset.gps
        more = [] if gps is None else [gps.identity()]
        more += [] if self.rigs is None else [self.rigs.content]
        return fingerprint("database", images, sorted(geometries.items()), *more)

    def make(self) -> None:
        """Write the database. Raises OSError if the disk has no room for it."""
        reserve(self.workspace.root, self._size())  # COLMAP would end the process
        with atomic_path(self.artifact) as temporary:
            colmap.write_database(
                temporary,
                self.cameras.assignment,
                self.verified.keypoints,
                self._pairs(),
                self._positions(),
            )
            if self.rigs is not None:
                self.rigs.apply(temporary)
            _check_whole(temporary)

    def _positions(self) -> dict[str, colmap.Prior]:
        gps = self.context.dataset.gps
        return {} if gps is None else {n: (gps.positions[n], gps.sigma[n]) for n in gps.positions}

    def _size(self) -> int:
        """About as many bytes as the database will have."""
        lengths = self.verify.extract.features.lengths("keypoints")
        keypoints = sum(lengths[name] for name in self.cameras.sizes)
        matches = sum(self.verify.match.matches.lengths("matches").values())
        return 8 * keypoints + 16 * matches + 400 * len(self.verified.pairs()) + (1 << 16)

    def _pairs(self) -> Iterator[colmap.VerifiedPair]:
        # In the order in which they are stored, so that each shard is opened once.
        keys = self.verify.order([pair_key(pair) for pair in self.verified.pairs()])
        pairs = [key_pair(key) for key in keys]
        counts = self.verify.extract.features.lengths("keypoints")
        with self.context.reporter.task(self.name, len(pairs), "pairs") as advance:
            for pair in pairs:
                matches, geometry = self.verified.matches(pair), self.verified.geometry(pair)
                for rows in (matches, geometry.inliers):  # COLMAP would crash
                    check_indices(pair, rows, (counts[pair[0]], counts[pair[1]]))
                yield pair, matches, geometry
                advance()

    def figures(self) -> dict[str, Any]:
        """How many images and pairs it holds."""
        return {"images": len(self.verify.extract.to_map()), "pairs": len(self.verified.pairs())}


def _check_whole(database: Path) -> None:
    """Raises OSError if SQLite, on closing, had no room to merge its log into the file."""
    log = database.with_name(database.name + "-wal")
    if log.is_file() and log.stat().st_size:
        raise OSError(errno.ENOSPC, "no room to finish the database", str(database))
