"""The output folder: names of artifacts, which of them are up to date, and who may write to it.

Whether an artifact is *up to date* is decided by fingerprints: SHA-256 over all that decided its
content (`reconstruct.fingerprints`), kept beside it (`reconstruct.stamps`).
"""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Iterator, Mapping
from pathlib import Path

from reconstruct.atomic import aside_of, remove, sweep
from reconstruct.errors import UsageError
from reconstruct.ownership import LOG, SETTINGS, hold, keep_copy, mark
from reconstruct.stamps import (
    BEING_MADE,
    Stamp,
    make_stamp,
    read_stamps,
    state,
    unchanged,
    write_stamps,
)

logger = logging.getLogger(__name__)

_WRITTEN_UNLOCKED = ("dataset", "export")
"""Folders in which ``plan`` and ``export`` may be writing meanwhile."""


class Workspace:
    """Paths inside one output folder, and which of them are up to date."""

    def __init__(self, root: Path | str) -> None:
        self.root = Path(root)
        self.config = self.root / SETTINGS
        self.log = self.root / LOG
        self.dataset = self.root / "dataset"
        self.features = self.root / "features"
        self.global_ = self.root / "global"
        self.pairs = self.root / "pairs.txt"
        self.matches = self.root / "matches"
        self.turns = self.root / "turns"
        self.geometries = self.root / "geometries"
        self.alignments = self.root / "alignments"
        self.refined = self.root / "refined"
        self.refined_geometries = self.root / "refined_geometries"
        self.disambiguated = self.root / "disambiguated.json"
        self.database = self.root / "database.db"
        self.sparse = self.root / "sparse"
        self.snapshots = self.root / "mapping"
        self.localized = self.root / "localized"
        self.poses = self.root / "poses.txt"
        self.gps = self.root / "gps.json"
        self.metrics = self.root / "metrics.json"
        self.report = self.root / "report.html"
        self.summary = self.root / "summary.json"
        self.trained = self.root / "best.safetensors"
        self.provenance = self.root / "best.json"
        self.checkpoint = self.root / "last.safetensors"
        self.curves = self.root / "curves.csv"
        self.drawn_curves = self.root / "curves.svg"
        self._stamps = self.root / ".fingerprints.json"

    def models(self) -> list[Path]:
        """The mapped models, the largest first: ``sparse``, ``sparse_1``, ``sparse_2`` ..."""
        stamps = read_stamps(self._stamps)
        further = [p for p in self.root.glob("sparse_*") if p.name[7:].isdigit()]
        own = [path for path in further if path.name in stamps]  # others are somebody's
        models = [self.sparse, *sorted(own, key=lambda path: int(path.name[7:]))]
        return [path for path in models if path.is_dir()]

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the folder for one run, creating and marking it as this program's.

        Released by the system if the run is killed.

        Raises:
            WorkspaceBusyError: Another run holds it; names the process.
            UsageError: There can be no such folder, or it holds somebody else's work.
        """
        with hold(self.root, self._mark):
            self._put_back()
            sweep(self.root, _WRITTEN_UNLOCKED)
            try:
                yield
            finally:
                sweep(self.root, _WRITTEN_UNLOCKED)  # of workers that were killed

    def _mark(self) -> None:
        """Mark the folder as this program's. Raises UsageError if it is somebody else's."""
        further = [path for path in self.root.glob("sparse_*") if path.name[7:].isdigit()]
        mark(self.root, [*self._artifacts(), *further])

    def _put_back(self) -> None:
        """Undo the replacing of a folder, of which a run was killed before the new one counted.

        A model may have been grown from the one that it replaced.
        """
        for name, stamp in read_stamps(self._stamps).items():
            path, aside = self.root / name, aside_of(self.root / name)
            if aside.is_dir() and not (stamp.fingerprint and path.exists()):
                remove(path)
                os.replace(aside, path)
            remove(aside)

    def _artifacts(self) -> list[Path]:
        return [path for path in vars(self).values() if path not in (self.root, self.dataset)]

    def stamp(self, artifact: Path) -> str | None:
        """The fingerprint under which an artifact was committed.

        None if it is not there, or is not what was committed: it was cut off, edited or replaced.
        """
        stamp = read_stamps(self._stamps).get(artifact.name)
        if stamp is None or not stamp.fingerprint:
            return None
        return stamp.fingerprint if unchanged(artifact, stamp) else None

    def set_stamp(self, artifact: Path, fingerprint: str | None) -> None:
        """Record the fingerprint of an artifact, after it was committed.

        None: it is this program's, and about to be made; what another program made of it is kept
        beside it. Raises UsageError if there is a file of that name which the program did not
        write.
        """
        stamps = read_stamps(self._stamps)
        if fingerprint is not None:
            stamps[artifact.name] = make_stamp(artifact, fingerprint)
        elif artifact.name in stamps or not artifact.exists() or not _is_precious(artifact):
            self._keep_changed(artifact, stamps)
            stamps[artifact.name] = BEING_MADE
        else:
            raise UsageError(
                f"{artifact}: is not of this program's making and would be replaced; move it "
                "elsewhere, or choose another --output"
            )
        write_stamps(self._stamps, stamps)
        if fingerprint is not None:
            remove(aside_of(artifact))

    def _keep_changed(self, artifact: Path, stamps: Mapping[str, Stamp]) -> None:
        """Copy an artifact that is about to go if it is not what this program left there."""
        stamp = stamps.get(artifact.name, BEING_MADE)
        ours = not stamp.fingerprint or unchanged(artifact, stamp)
        if not ours and _is_precious(artifact) and (artifact.is_file() or artifact.is_dir()):
            kept = keep_copy(artifact)
            logger.warning("%s was changed by another program; kept as %s", artifact, kept.name)

    def renew_stamp(self, artifact: Path) -> None:
        """Look at an artifact again after another program has opened it to write, or copied it.

        Else it would be read whole whenever somebody asks whether it is what was committed.
        """
        if self.stamp(artifact) is not None:
            stamps, (size, changed) = read_stamps(self._stamps), state(artifact)
            renewed = stamps[artifact.name]._replace(size=size, changed_ns=changed)
            if renewed != stamps[artifact.name]:
                write_stamps(self._stamps, {**stamps, artifact.name: renewed})

    def forget_models(self, kept: int) -> None:
        """Remove the models beyond the first ``kept``, those that this program wrote."""
        for path in self.models()[kept:]:
            stamps = read_stamps(self._stamps)
            self._keep_changed(path, stamps)
            remove(path)
            stamps.pop(path.name, None)
            write_stamps(self._stamps, stamps)


def _is_precious(artifact: Path) -> bool:
    """Whether other programs keep their work under that name."""
    name = artifact.name
    known = ("database.db", "sparse", "pairs.txt", "poses.txt", "best.safetensors")
    return name in known or name.startswith("sparse_")
