"""A row of a comparison: candidate poses by one way or several, and what picks among them."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from pydantic import Field, model_validator

from reconstruct.atomic import atomic_path
from reconstruct.config import Section
from reconstruct.errors import ArtifactError
from reconstruct.files import read_text
from reconstruct.fingerprints import fingerprint
from reconstruct.indoor.candidates import Candidates
from reconstruct.indoor.choice import ChoiceRule, ScoredPose, choose
from reconstruct.indoor.dense_verification import VerificationConfig
from reconstruct.indoor.verify_poses import VerifyPoses
from reconstruct.indoor.ways import PoseConfig
from reconstruct.stages import Context, Plan
from reconstruct.stages.extract import Extract
from reconstruct.stages.keyed import KeyedStage
from reconstruct.stages.match import Match
from reconstruct.stages.whole import WholeStage
from reconstruct.storage.poses import write_poses
from reconstruct.types import PoseEstimate, PoseStatus
from reconstruct.workspace import Workspace

logger = logging.getLogger(__name__)

SECONDS = "seconds_a_pair.txt"
"""File beside the matches with the time that matching took; no result depends on it."""


class RowConfig(Section):
    """An entry of section ``rows``."""

    label: str = Field(pattern=r"^\w[\w .,+-]*$")
    """Names the row in tables, files, and --only; unique."""
    poses: tuple[PoseConfig, ...] = Field(strict=False)
    """Ways to candidate poses; of several the union."""
    verification: VerificationConfig | None = None
    """Dense PV ({}: with the default settings) picks the candidate; null: most inliers do."""

    choice: ChoiceRule = "union"
    """Which candidate is the pose. union: the best of all; sum_by_image: as the authors' release
    does, the best from the image of the map whose candidates score most in sum."""

    @model_validator(mode="after")
    def _check(self) -> RowConfig:
        if not self.poses:
            raise ValueError("`poses`: expected one way to candidate poses or several, got none")
        return self


@dataclass(frozen=True, slots=True, eq=False)
class CandidateSource:
    """One way to candidate poses, with the stages behind it.

    Args:
        extract: Features.
        match: Matches; None for Direct PE.
        candidates: Candidate poses.
        scores: Dense PV of the candidates; None where inliers decide.
    """

    extract: Extract
    match: Match | None
    candidates: Candidates
    scores: VerifyPoses | None = None

    @property
    def steps(self) -> list[KeyedStage]:
        """The stages in their order."""
        steps: list[KeyedStage | None] = [self.extract, self.match, self.candidates, self.scores]
        return [step for step in steps if step is not None]

    @property
    def last(self) -> KeyedStage:
        """The stage on which the row's poses depend."""
        return self.scores or self.candidates

    def seconds(self) -> float | None:
        """Mean time of a query for matching, poses and Dense PV; features are not counted.

        None: not known, as the run that matched was killed.
        """
        store = self.candidates.candidates
        queries = list(self.candidates.known_fingerprints())
        total = _mean(store.load(name).seconds for name in queries)
        if self.match is not None:
            pairs = len(self.match.pairs()) / max(len(queries), 1)
            a_pair = read_seconds(self.match)
            if a_pair is None:
                return None
            total += pairs * a_pair
        if self.scores is not None:
            total += _mean(self.scores.scores.load(name).seconds for name in queries)
        return total


class Row(WholeStage):
    """A row of the table: candidates of one or several ways, and what picks among them."""

    def __init__(
        self, context: Context, config: RowConfig, sources: Sequence[CandidateSource]
    ) -> None:
        self.folder = context.workspace.root / "rows" / config.label
        inner = replace(context, workspace=Workspace(self.folder))
        super().__init__(inner, self.folder / "poses.txt", [source.last for source in sources])
        self.name = config.label
        self.config = config
        self.sources = sources

    def steps(self) -> list[KeyedStage]:
        """All stages behind the row, in their order."""
        return [step for source in self.sources for step in source.steps]

    def find_fingerprint(self) -> str | None:
        """Fingerprint over the candidates (and scores) of all queries."""
        parts = [source.last.fingerprints() for source in self.sources]
        if any(part is None for part in parts):
            return None
        rule = [] if self.config.choice == "union" else [self.config.choice]
        return fingerprint(
            "row", *rule, [sorted(part.items()) for part in parts if part is not None]
        )

    def plan(self) -> Plan:
        """The first thing to do."""
        for step in self.steps():
            plan = step.plan()
            if plan.todo or plan.state != "done":
                return replace(plan, why=f"{step.name}: {plan.why}")
        return super().plan()

    def discard(self) -> None:
        """Forget poses, candidates and scores; features and matches stay."""
        super().discard()
        for source in self.sources:
            source.candidates.discard()
            if source.scores is not None:
                source.scores.discard()

    def settle(self) -> None:
        """Take what is stored as it is."""
        for step in self.steps():
            step.settle()
        super().settle()

    def run(self) -> None:
        """Bring all of it up to date, and write poses.txt."""
        for step in self.steps():
            step.run()
            if isinstance(step, Match) and step.made:
                write_seconds(step)
        super().run()

    def make(self) -> None:
        """Write poses.txt."""
        logger.info("row %s", self.name)
        estimates = self.estimates()
        poses = {e.name: e.cam_from_world for e in estimates if e.cam_from_world is not None}
        write_poses(self.artifact, poses)

    def estimates(self) -> list[PoseEstimate]:
        """The best candidate of each query with features, or a status without a pose."""
        names = {name for s in self.sources for name in s.candidates.known_fingerprints()}
        return [self._best(name) for name in sorted(names)]

    def _scored(self, name: str) -> list[ScoredPose]:
        """The candidates of a query from all sources. One whose extractor could not read the query
        has none, which was told when it was tried."""
        return [
            pose
            for number, source in enumerate(self.sources)
            if name in source.candidates.known_fingerprints()
            for pose in _scored(source, number, name)
        ]

    def _best(self, name: str) -> PoseEstimate:
        best = choose(self._scored(name), self.config.choice)
        if best is None:
            sources = [s for s in self.sources if name in s.candidates.known_fingerprints()]
            most = max(source.candidates.candidates.load(name).most_matches for source in sources)
            needed = min(source.candidates.config.min_inliers for source in self.sources)
            status: PoseStatus = "too_few_matches" if most < needed else "ransac_failed"
            return PoseEstimate(name=name, status=status, matches=most)
        candidates = self.sources[best.method].candidates.candidates.load(name)
        return PoseEstimate(
            name=name,
            status="ok",
            matches=candidates.matches[best.index],
            inliers=best.inliers,
            cam_from_world=candidates.poses[best.index],
        )

    def map_photos(self) -> dict[str, tuple[str, int]]:
        """Query -> the image of the map that its pose came from, and the inliers."""
        found = {}
        for name in sorted({n for s in self.sources for n in s.candidates.known_fingerprints()}):
            if (best := choose(self._scored(name), self.config.choice)) is not None:
                candidates = self.sources[best.method].candidates.candidates.load(name)
                found[name] = candidates.images[best.index], best.inliers
        return found

    def figures(self) -> dict[str, Any]:
        """What the summary tells of the row."""
        estimates = self.estimates()
        figures: dict[str, Any] = {
            "queries": len(estimates),
            "localized": sum(e.status == "ok" for e in estimates),
        }
        seconds = [source.seconds() for source in self.sources]
        if None not in seconds:
            figures["seconds_a_query"] = round(sum(filter(None, seconds)), 2)
        failed = [
            f"{e.name} ({e.status}, {e.matches} matches)" for e in estimates if e.status != "ok"
        ]
        if failed:
            figures["failed"] = failed
        return figures


def _scored(source: CandidateSource, method: int, name: str) -> list[ScoredPose]:
    """The candidates of a query from one source, in their order."""
    candidates = source.candidates.candidates.load(name)
    distances: list[float | None] = [None] * len(candidates.poses)
    if source.scores is not None:
        distances = source.scores.scores.load(name).values.tolist()
    return [
        ScoredPose(
            image=candidates.images[i],
            distance=distance,
            inliers=candidates.inliers[i],
            method=method,
            index=i,
        )
        for i, distance in enumerate(distances)
    ]


def write_seconds(match: Match) -> None:
    """Keep what matching took a pair, for the figures of later runs too."""
    path = match.context.workspace.root / SECONDS
    with atomic_path(path) as temporary:
        seconds = f"{match.seconds / match.made:.4g}"
        temporary.write_text(f"{seconds} {match.fingerprint_of_all()}\n", encoding="utf-8")


def read_seconds(match: Match) -> float | None:
    """What matching took a pair; None where it is not known of the present matches."""
    path = match.context.workspace.root / SECONDS
    if not path.is_file():
        return None
    try:
        seconds, *of = read_text(path).split()  # an older release did not say of which matches
        return float(seconds) if of in ([], [match.fingerprint_of_all()]) else None
    except ValueError as error:
        raise ArtifactError(f"{path}: is not a number of seconds; remove it") from error


def _mean(values: Iterable[float]) -> float:
    numbers = list(values)
    return sum(numbers) / len(numbers) if numbers else 0.0
