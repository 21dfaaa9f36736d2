"""What a report shows, as plain data: the page is a pure function of this.

Pictures are ``data:`` addresses. Lengths without a unit in their name are in the model's unit.
A photo in a list of photos is given by its index.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from reconstruct.report.verdict import Verdict

Rows = tuple[tuple[str, ...], ...]
Point = tuple[float, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class CameraView:
    """A camera of the 3D view. matrix: (3, 4) cam_from_world, by rows. slopes: half the width and
    half the height of the image plane at distance one. photo: index, or -1 where there is none.
    kind: mapped, or a query. error: position error of a query with its unit, if its true pose is
    known."""

    name: str
    matrix: tuple[float, ...]
    slopes: Point
    photo: int
    kind: Literal["mapped", "query"] = "mapped"
    error: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelView:
    """A model for the 3D viewer.

    points: base64 of (N, 3) uint16, little endian, in the box from ``low`` to ``low + size``.
    colors: base64 of (N, 3) uint8. shown, total: points here and in the model. up: of the world,
    away from what the cameras call down. cameras: in the order of their names.
    """

    name: str
    points: str
    colors: str
    shown: int
    total: int
    low: tuple[float, ...]
    size: float
    up: tuple[float, ...]
    cameras: tuple[CameraView, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class PhotoRow:
    """A photo in the table; None where a figure does not apply.

    state: ``mapped``, ``other model``, ``not mapped`` or ``query``. matched: photos that it has a
    verified pair with. error_px: mean reprojection error. position_uncertainty_percent: how
    far its position may be off, of the extent of the cameras. focal_prior, focal: pixels, before
    and after mapping. gps_m: distance from where its GPS says, after alignment. group: camera or
    group of queries. advice: why it is not in the model and what to try.
    """

    name: str
    thumbnail: str | None
    state: str
    keypoints: int | None = None
    matched: int | None = None
    observations: int | None = None
    error_px: float | None = None
    position_uncertainty_percent: float | None = None
    focal_prior: float | None = None
    focal: float | None = None
    gps_m: float | None = None
    group: str = ""
    advice: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """A photo at display size: width and height in which positions on it are given."""

    name: str
    data: str
    width: float
    height: float


@dataclass(frozen=True, slots=True, kw_only=True)
class MatchLine:
    """A match, on the left and the right picture. error_px: None where no 3D point came of it."""

    left: Point
    right: Point
    error_px: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class PairFigure:
    """Matches drawn on two photos. label: why this pair is here. caption: its figures.

    failed: no two-view geometry was found for the matches. first: it begins a row, as the first
    method does where several show the same pair."""

    label: str
    caption: str
    left: Picture
    right: Picture
    lines: tuple[MatchLine, ...]
    total: int
    failed: bool = False
    first: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class CloseUp:
    """A track at pixel scale: the patch around its keypoint in some photos, before refinement and
    after. move_px: how far the keypoints moved, at most."""

    names: tuple[str, ...]
    before: tuple[str, ...]
    after: tuple[str, ...]
    move_px: float


@dataclass(frozen=True, slots=True, kw_only=True)
class GraphNode:
    """A photo in the match graph over the plan; ``at`` in the unit square, y down."""

    name: str
    at: Point
    photo: int
    cut: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class MatchGraph:
    """Verified pairs.

    heat: picture of the matrix of photos by photos. names: its rows. most: matches of the strongest
    cell. plan: picture of the points from above. edges: indices of two nodes and inlier matches.
    sentences: what holds the graph together.
    """

    heat: str
    names: tuple[str, ...]
    most: int
    plan: str | None
    nodes: tuple[GraphNode, ...]
    edges: tuple[tuple[int, int, int], ...]
    sentences: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Histogram:
    """Counts of each series in bins with these edges (one more than counts). ylabel: what is
    counted."""

    title: str
    xlabel: str
    ylabel: str
    caption: str
    edges: tuple[float, ...]
    series: tuple[tuple[str, tuple[int, ...]], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ResidualField:
    """Median reprojection residual over the image plane of a camera.

    size: of its photos in pixels. cells: x and y of the middle, median residual in x and in y
    (pixels), observations.
    """

    title: str
    caption: str
    size: tuple[int, int]
    cells: tuple[tuple[float, float, float, float, int], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Density:
    """Keypoints over the image plane, all photos laid over each other: counts by rows."""

    title: str
    caption: str
    aspect: float
    rows: tuple[tuple[int, ...], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class StageCost:
    """A stage: seconds and memory of this run where known, and its figures as texts."""

    name: str
    seconds: float | None
    memory_mb: float | None
    figures: Rows


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """Texts under a head. best: for each column the row that is best in it, or -1."""

    title: str
    head: tuple[str, ...]
    rows: Rows


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """changed: dotted key, value, default, of what the run's file or --set changed. all: YAML."""

    changed: Rows
    all: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportContent:
    """The whole report; parts that a run does not have are empty."""

    title: str
    verdict: Verdict
    tiles: Rows = ()
    models: tuple[ModelView, ...] = ()
    photos: tuple[PhotoRow, ...] = ()
    photos_total: int = 0
    pairs: tuple[PairFigure, ...] = ()
    closeups: tuple[CloseUp, ...] = ()
    graph: MatchGraph | None = None
    histograms: tuple[Histogram, ...] = ()
    residuals: tuple[ResidualField, ...] = ()
    density: Density | None = None
    queries: tuple[PairFigure, ...] = ()
    query_rows: Rows = ()
    tables: tuple[Table, ...] = ()
    drawings: tuple[tuple[str, str], ...] = ()
    stages: tuple[StageCost, ...] = ()
    skipped: Rows = ()
    settings: Settings = field(default_factory=lambda: Settings(changed=(), all=""))
    made: dict[str, Any] = field(default_factory=dict)
