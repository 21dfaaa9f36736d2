"""Pair: which images are matched with which -> pairs.txt."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from reconstruct import colmap
from reconstruct.config import Section
from reconstruct.errors import ReconstructionError
from reconstruct.geometry import projection_center
from reconstruct.stages import Context, Plan, plan_whole
from reconstruct.stages.extract import Extract
from reconstruct.storage.pairs import ordered, read_pairs, write_pairs
from reconstruct.types import ImagePair
from reconstruct.workspace import file_hash, fingerprint, tree_hash


class ExhaustiveConfig(Section):
    """Every image with every other: best up to some hundred images."""

    method: Literal["exhaustive"]


class SequentialConfig(Section):
    """Each image with its successors in the order of names: videos."""

    method: Literal["sequential"]
    overlap: int = Field(10, ge=1)
    """Number of successors."""
    quadratic: bool = False
    """Also the successors at distances 2, 4, 8 ... up to 2 ** overlap."""
    loop_every: int | None = Field(None, ge=1)
    """Every so many images, one is matched with all others that are so chosen: closes loops."""


class PosesConfig(Section):
    """The nearest by position and view direction in a reference model."""

    method: Literal["poses"]
    reference: str
    """COLMAP model folder with poses."""
    neighbors: int = Field(20, ge=1)
    """How many for each image."""
    max_angle_deg: float = Field(45.0, gt=0, le=180)
    """Images that look farther apart than this are not matched."""


class ListConfig(Section):
    """Two names a line in a text file."""

    method: Literal["list"]
    path: str


PairConfig = Annotated[
    ExhaustiveConfig | SequentialConfig | PosesConfig | ListConfig, Field(discriminator="method")
]


def exhaustive_pairs(names: Sequence[str]) -> list[ImagePair]:
    """All pairs of ``names``, n (n - 1) / 2 of them."""
    return sorted(ordered(*pair) for pair in combinations(sorted(names), 2))


def sequential_pairs(
    names: Sequence[str], overlap: int, quadratic: bool, loop_every: int | None
) -> list[ImagePair]:
    """Pairs of neighbours in the order of ``names``, and of the images chosen for loops."""
    names = sorted(names)
    steps = set(range(1, overlap + 1))
    if quadratic:
        steps |= {2**power for power in range(overlap + 1)}
    pairs = {
        (names[i], names[i + step])
        for i in range(len(names))
        for step in steps
        if i + step < len(names)
    }
    if loop_every is not None:
        pairs |= set(combinations(names[::loop_every], 2))
    return sorted(pairs)


def pose_pairs(
    poses: Mapping[str, NDArray[np.float64]], neighbors: int, max_angle_deg: float
) -> list[ImagePair]:
    """For every image its nearest ``neighbors`` among those that look a similar way.

    poses: name -> (3, 4) cam_from_world. Distance of camera centres decides.
    """
    names = sorted(poses)
    centers = np.array([projection_center(poses[name]) for name in names]).reshape(-1, 3)
    directions = np.array([poses[name][2, :3] for name in names]).reshape(-1, 3)  # optical axes
    pairs: set[ImagePair] = set()
    for i, name in enumerate(names):
        distance = np.linalg.norm(centers - centers[i], axis=1)
        angle = np.degrees(np.arccos(np.clip(directions @ directions[i], -1, 1)))
        allowed = (angle <= max_angle_deg) & (np.arange(len(names)) != i)
        order = np.argsort(np.where(allowed, distance, np.inf), kind="stable")
        pairs |= {ordered(name, names[j]) for j in order[:neighbors] if allowed[j]}
    return sorted(pairs)


class Pair:
    """The stage."""

    name = "pair"

    def __init__(self, context: Context, config: PairConfig, extract: Extract) -> None:
        self.context = context
        self.config = config
        self.extract = extract

    def fingerprint(self, names: Sequence[str]) -> str:
        """Over the settings, what they point to, and the images."""
        content = None
        if isinstance(self.config, ListConfig):
            content = file_hash(Path(self.config.path))
        if isinstance(self.config, PosesConfig):
            content = tree_hash(Path(self.config.reference))
        return fingerprint("pairs", self.config.identity(), content, list(names))

    def choose(self, names: Sequence[str]) -> list[ImagePair]:
        """The pairs of ``names`` by the configured method; what it leaves out is reported."""
        config = self.config
        if isinstance(config, ExhaustiveConfig):
            return exhaustive_pairs(names)
        if isinstance(config, SequentialConfig):
            return sequential_pairs(names, config.overlap, config.quadratic, config.loop_every)
        if isinstance(config, PosesConfig):
            poses = colmap.model_poses(colmap.read_model(Path(config.reference)))
            for name in sorted(set(names) - set(poses)):
                self.context.summary.skipped[name] = f"no pose in {config.reference}: not paired"
            known = {name: poses[name] for name in names if name in poses}
            return pose_pairs(known, config.neighbors, config.max_angle_deg)
        pairs, absent = read_pairs(Path(config.path), names)
        for line in absent:
            self.context.summary.skipped[line] = f"pair in {config.path} without its images"
        return pairs

    def pairs(self) -> list[ImagePair]:
        """The committed pairs."""
        return read_pairs(self.context.workspace.pairs, self.extract.available())[0]

    def up_to_date(self) -> bool:
        """Whether pairs.txt stands for the extracted images and the settings."""
        stamp = self.context.workspace.stamp(self.context.workspace.pairs)
        return stamp == self.fingerprint(self.extract.available())

    def plan(self) -> Plan:
        """Whether pairs.txt will still stand once the images are extracted."""
        foreseen = self.fingerprint(list(self.extract.wanted()))
        if self.up_to_date() and self.extract.plan().todo:
            return Plan("waiting", "the list of images may change with extract")
        return plan_whole(self.context, self.context.workspace.pairs, foreseen, "pairs.txt")

    def discard(self) -> None:
        """Forget pairs.txt."""
        self.context.workspace.set_stamp(self.context.workspace.pairs, None)

    def run(self) -> None:
        """Write pairs.txt. Raises ReconstructionError if there is no pair at all."""
        workspace, names = self.context.workspace, self.extract.available()
        value = self.fingerprint(names)
        pairs = self.choose(names)
        if not pairs:
            raise ReconstructionError(
                f"{len(names)} readable image(s) and no pair to match: at least two photos of one "
                "scene are needed"
            )
        if not self.up_to_date():
            write_pairs(workspace.pairs, pairs)
            workspace.set_stamp(workspace.pairs, value)
        self.context.summary.figures[self.name] = {"pairs": len(pairs)}
