"""A row of a comparison: candidate poses by one way or several, and what picks among them."""

from __future__ import annotations

import logging
import resource
import time
from collections.abc import Iterable, Sequence
from typing import Any

from pydantic import Field, model_validator

from reconstruct.config import Section
from reconstruct.indoor.candidates import Candidates, PoseConfig
from reconstruct.indoor.dense_verification import VerificationConfig
from reconstruct.indoor.verify_poses import VerifyPoses
from reconstruct.stages import Context, Plan, Stage
from reconstruct.stages.extract import Extract
from reconstruct.stages.match import Match
from reconstruct.storage.poses import write_poses
from reconstruct.types import PoseEstimate, PoseStatus
from reconstruct.workspace import Workspace, fingerprint

logger = logging.getLogger(__name__)

SECONDS = "seconds_a_pair.txt"
"""What matching took, beside the matches: no part of any result."""


class RowConfig(Section):
    """An entry of section ``rows``."""

    label: str = Field(pattern=r"^\w[\w .,+-]*$")
    """Names the row in tables, files, and --only; unique."""
    poses: tuple[PoseConfig, ...] = Field(strict=False)
    """Ways to candidate poses; of several the union."""
    verification: VerificationConfig | None = None
    """Dense PV ({}: with the default settings) picks the candidate; null: most inliers do."""

    @model_validator(mode="after")
    def _check(self) -> RowConfig:
        if not self.poses:
            raise ValueError("`poses`: expected one way to candidate poses or several, got none")
        return self


class CandidateSource:
    """One way to candidate poses, with the stages before it."""

    def __init__(self, extract: Extract, match: Match | None, candidates: Candidates) -> None:
        self.extract = extract
        self.match = match
        self.candidates = candidates

    @property
    def steps(self) -> list[Stage]:
        """In their order."""
        return [step for step in (self.extract, self.match, self.candidates) if step is not None]


class Row:
    """A row of the table: candidates of one or several ways, and what picks among them."""

    def __init__(self, context: Context, config: RowConfig, sources: list[CandidateSource]) -> None:
        self.name = config.label
        self.context = context
        self.config = config
        self.sources = sources
        self.scores: list[VerifyPoses] = []
        self.folder = context.workspace.root / "rows" / config.label
        self.poses = self.folder / "poses.txt"
        self.workspace = Workspace(self.folder)

    def steps(self) -> list[Stage]:
        """All stages behind the row, in their order."""
        return [*(step for source in self.sources for step in source.steps), *self.scores]

    def fingerprint(self) -> str | None:
        """Of the row's poses; None while stages before are incomplete."""
        last: Sequence[Candidates | VerifyPoses]
        last = self.scores or [source.candidates for source in self.sources]
        parts = [step.wanted() for step in last]
        if any(part is None for part in parts):
            return None
        return fingerprint("row", [sorted(part.items()) for part in parts if part is not None])

    def plan(self) -> Plan:
        """The first thing to do."""
        for step in self.steps():
            found = step.plan()
            if found.todo or found.state != "done":
                return Plan(found.state, f"{step.name}: {found.why}", found.todo, found.total)
        if self.workspace.stamp(self.poses) == self.fingerprint():
            return Plan("done", "up to date", 0)
        return Plan("missing", "poses.txt")

    def discard(self) -> None:
        """Forget poses, candidates and scores; features and matches stay."""
        self.workspace.set_stamp(self.poses, None)
        for source in self.sources:
            source.candidates.discard()
        for scores in self.scores:
            scores.discard()

    def run(self) -> None:
        """Bring all of it up to date, and write poses.txt."""
        if self.plan().state != "done":
            logger.info("row %s", self.name)
            for step in self.steps():
                started = time.perf_counter()
                step.run()
                if isinstance(step, Match):
                    self._time_matching(step, time.perf_counter() - started)
            self.workspace.set_stamp(self.poses, None)
            found = self.estimates()
            poses = {e.name: e.cam_from_world for e in found if e.cam_from_world is not None}
            write_poses(self.poses, poses)
            self.workspace.set_stamp(self.poses, self.fingerprint())
        self.context.summary.figures[self.name] = self.figures()

    def estimates(self) -> list[PoseEstimate]:
        """Of each query whose features are there, the best candidate, or a status without pose."""
        names = {name for source in self.sources for name in source.candidates.store.fingerprints()}
        return [self._pick(name) for name in sorted(names)]

    def _pick(self, name: str) -> PoseEstimate:
        ranked, most = [], 0
        for number, source in enumerate(self.sources):
            if name not in source.candidates.store.fingerprints():
                continue  # this extractor could not read it: told when that was tried
            found = source.candidates.store.load(name)
            most = max(most, found.most_matches)
            count = len(found.poses)
            values = [0.0] * count
            if self.scores:
                values = self.scores[number].store.load(name).values.tolist()
            ranked += [
                (values[i], -found.inliers[i], number, i, found.poses[i], found.matches[i])
                for i in range(count)
            ]
        if not ranked:
            needed = min(source.candidates.config.min_inliers for source in self.sources)
            status: PoseStatus = "too_few_matches" if most < needed else "ransac_failed"
            return PoseEstimate(name=name, status=status, matches=most)
        _, inliers, _, _, pose, matches = min(ranked, key=lambda entry: entry[:4])
        return PoseEstimate(
            name=name, status="ok", matches=matches, inliers=-inliers, cam_from_world=pose
        )

    def _time_matching(self, match: Match, seconds: float) -> None:
        """Keep what matching took a pair, for the figures of later runs too."""
        now = match.context.summary.figures[match.name]["matched_now"]
        if now:
            path = match.context.workspace.root / SECONDS
            path.write_text(f"{seconds / now:.4g}\n", encoding="utf-8")

    def figures(self) -> dict[str, Any]:
        """What the summary tells of the row."""
        found = self.estimates()
        figures: dict[str, Any] = {
            "queries": len(found),
            "localized": sum(e.status == "ok" for e in found),
            "seconds_a_query": round(self.seconds(), 2),
            "peak_memory_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
        }
        failed = [f"{e.name} ({e.status}, {e.matches} matches)" for e in found if e.status != "ok"]
        if failed:
            figures["failed"] = failed
        return figures

    def seconds(self) -> float:
        """Mean time of a query for matching, poses and Dense PV; features are not counted."""
        total = 0.0
        for source in self.sources:
            poses = source.candidates.store
            queries = list(poses.fingerprints())
            total += _mean(poses.load(name).seconds for name in queries)
            if source.match is not None:
                path = source.match.context.workspace.root / SECONDS
                pairs = len(source.match.pair.pairs()) / max(len(queries), 1)
                total += pairs * float(path.read_text()) if path.is_file() else 0.0
        for step in self.scores:
            total += _mean(step.store.load(name).seconds for name in step.store.fingerprints())
        return total


def _mean(values: Iterable[float]) -> float:
    found = list(values)
    return sum(found) / len(found) if found else 0.0
