"""Means over pairs, tables, and the two protocols on matches made by hand."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from reconstruct.benchmark.protocols import PairScore, summarise
from reconstruct.benchmark.protocols.daynight import DayNightBenchmark
from reconstruct.benchmark.protocols.hpatches import HPatchesBenchmark
from reconstruct.benchmark.protocols.tables import benchmark_tables
from reconstruct.benchmark.protocols.wxbs import WxBSBenchmark
from reconstruct.datasets import Dataset
from reconstruct.datasets.daynight import DayNight
from reconstruct.datasets.hpatches import HPatches
from reconstruct.datasets.wxbs import WxBS

A, B = ("v_a/1.png", "v_a/2.png"), ("i_b/1.png", "i_b/2.png")
RIGHT = np.array([10.0, 0.0])
SHIFT = np.array([[1.0, 0.0, 10.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]])


def hpatches() -> HPatchesBenchmark:
    names = tuple(sorted({*A, *B}))
    data = HPatches(
        dataset=Dataset(root=Path("unused"), names=names),
        homographies={A: SHIFT, B: np.eye(3)},
        sequences=("i_b", "v_a"),
        left_out=(),
    )
    return HPatchesBenchmark(data=data)


def grid() -> np.ndarray[Any, np.dtype[np.float64]]:
    return np.stack(np.meshgrid(np.arange(20.0, 200, 20), np.arange(20.0, 160, 20)), -1).reshape(
        -1, 2
    )


def test_every_pair_counts_the_same() -> None:
    scores = {
        A: PairScore(matches=1, shares=(1.0, 1.0), error_px=0.0),
        B: PairScore(matches=999, shares=(0.0, 0.5), error_px=float("inf")),
    }
    found = summarise(scores, [A, B], (1.0, 2.0), (5.0,))
    assert found.pairs == 2
    assert found.matches == 500.0
    assert found.shares == {"1": 0.5, "2": 0.75}
    assert found.auc == {"5": pytest.approx(0.5)}


def test_pairs_without_a_score_are_counted_out() -> None:
    scores = {A: PairScore(matches=4, shares=(1.0,), error_px=0.5)}
    assert summarise(scores, [A, B], (1.0,), ()).pairs == 1
    none = summarise({}, [A, B], (1.0,), (1.0,))
    assert (none.pairs, none.matches, none.shares, none.auc) == (0, 0.0, {"1": 0.0}, {"1": 0.0})


def test_hpatches_groups() -> None:
    assert hpatches().groups == {"overall": (B, A), "illumination": (B,), "viewpoint": (A,)}


def test_hpatches_score_of_exact_matches() -> None:
    score = hpatches().score(A, grid(), grid() + RIGHT, (220, 180))
    assert score.shares == (1.0,) * 10
    assert score.error_px == pytest.approx(0.0, abs=1e-6)
    assert score.matches == len(grid())


def test_hpatches_score_of_biased_matches() -> None:
    score = hpatches().score(A, grid(), grid() + 1.2 * RIGHT, (220, 180))
    assert score.shares == (0.0, *[1.0] * 9)  # 2 px off
    assert score.error_px == pytest.approx(2.0, abs=1e-6)


@pytest.mark.parametrize("count", [0, 1, 3])
def test_hpatches_score_of_too_few_matches(count: int) -> None:
    points = grid()[:count]
    score = hpatches().score(A, points, points + RIGHT, (220, 180))
    assert score.matches == count
    assert score.shares == ((1.0,) if count else (0.0,)) * 10
    assert score.error_px == np.inf


def test_the_estimate_does_not_change_from_run_to_run() -> None:
    rng = np.random.default_rng(0)
    second = grid() + RIGHT + rng.normal(0, 3, grid().shape)
    scores = {hpatches().score(A, grid(), second, (220, 180)).error_px for _ in range(3)}
    assert len(scores) == 1


def daynight() -> DayNightBenchmark:
    a, b, c, d = names = ("x/day-0.jpg", "x/day-1.jpg", "x/night-0.jpg", "x/night-1.jpg")
    pairs = {"day-day": ((a, b),), "day-night": ((a, c), (a, d)), "night-night": ((c, d),)}
    dataset = Dataset(root=Path("unused"), names=names)
    return DayNightBenchmark(data=DayNight(dataset=dataset, pairs=pairs, cameras=("x",)))


def test_daynight_counts_correct_matches() -> None:
    benchmark = daynight()
    pairs = benchmark.groups["day-night"]
    assert benchmark.groups["overall"] == tuple(sorted(sum(benchmark.data.pairs.values(), ())))
    first = grid()[:20]
    off = np.zeros_like(first)
    off[:2, 0], off[2:5, 1], off[5:] = 0.5, -2.0, [3.0, 4.0]  # 2, 3 and 15 of them
    scores = {pair: benchmark.score(pair, first, first + off, (220, 180)) for pair in pairs[:1]}
    assert scores[pairs[0]].shares == (0.1, 0.25, 1.0)
    assert scores[pairs[0]].error_px == 5.0
    scores[pairs[1]] = benchmark.score(pairs[1], first, first + off / 5, (220, 180))
    result = summarise(scores, pairs, benchmark.thresholds_px, (), benchmark.correct_px)
    assert (result.correct, result.matched) == (12.5, 0.5)  # 5 of 20, and 20 of 20
    rows = {"m": {"features": 20.0, "groups": dict.fromkeys(benchmark.groups, asdict(result))}}
    head, row = benchmark_tables(benchmark, rows)[
        "daynight, day-night, 2 pairs: matches near the truth, %"
    ]
    assert head == ["method", "features", "matches", "1", "3", "5", "correct", ">=15"]
    assert row == ["m", "20", "20", "55.0", "62.5", "100.0", "12", "50"]


def test_daynight_without_matches() -> None:
    benchmark = daynight()
    (pair,) = benchmark.groups["day-day"]
    score = benchmark.score(pair, np.zeros((0, 2)), np.zeros((0, 2)), (220, 180))
    assert (score.matches, score.shares, score.error_px) == (0, (0.0, 0.0, 0.0), np.inf)
    result = summarise({pair: score}, [pair], benchmark.thresholds_px, (), benchmark.correct_px)
    assert (result.correct, result.matched) == (0.0, 0.0)


def test_wxbs_score() -> None:
    rng = np.random.default_rng(1)
    points = np.column_stack([rng.uniform(-2, 2, (80, 2)), rng.uniform(4, 8, 80)])

    def project(offset: float) -> np.ndarray[Any, np.dtype[np.float64]]:
        moved = points + offset * np.array([1.0, 0.0, 0.3])
        return 300 * moved[:, :2] / moved[:, 2:] + 250

    first, second = project(0.0), project(1.0)
    pair = ("WGABS/a/01.png", "WGABS/a/02.png")
    truth = np.column_stack([first, second])[:20]
    data = WxBS(dataset=Dataset(root=Path("unused"), names=pair), correspondences={pair: truth})
    benchmark = WxBSBenchmark(data=data)
    assert list(benchmark.groups) == ["overall", "WGABS"]
    good = benchmark.score(pair, first[20:], second[20:], (500, 500))
    assert good.shares == (1.0, 1.0, 1.0)
    assert good.error_px < 0.1
    none = benchmark.score(pair, first[:0], second[:0], (500, 500))
    assert none.shares == (0.0, 0.0, 0.0)
    assert none.error_px == np.inf
    half = np.where(rng.random((60, 1)) < 0.75, rng.uniform(0, 500, (60, 2)), second[20:])
    several = WxBSBenchmark(data=data, repeats=3, seed=5).score(pair, first[20:], half, (500, 500))
    single = [WxBSBenchmark(data=data, seed=5 + i) for i in range(3)]
    shares = [each.score(pair, first[20:], half, (500, 500)).shares for each in single]
    np.testing.assert_allclose(several.shares, np.mean(shares, axis=0))


def test_tables_mark_what_others_reported_and_what_is_incomplete() -> None:
    benchmark = hpatches()
    scores = {A: PairScore(matches=4, shares=(0.25,) * 10, error_px=0.5)}
    groups = {
        name: asdict(summarise(scores, pairs, benchmark.thresholds_px, benchmark.auc_thresholds_px))
        for name, pairs in benchmark.groups.items()
    }
    tables = benchmark_tables(benchmark, {"mine": {"features": 7.0, "groups": groups}})
    overall, illumination, viewpoint = tables.values()
    assert overall[1][:4] == ["mine (1 pairs)", "7", "4", "25.0"]
    assert viewpoint[1][0] == "mine"
    assert sum("(reported)" in row[0] for row in overall) == len(benchmark.reported)
    assert len(illumination) == 2
    assert {len(row) for rows in tables.values() for row in rows} == {3 + 10 + 3}
