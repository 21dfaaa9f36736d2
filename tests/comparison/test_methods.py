"""What a command line says of the methods to compare, and what pipelines come of it."""

from __future__ import annotations

from typing import Any

import pytest

from reconstruct.comparison.methods import (
    MethodSpec,
    overrides_for,
    parse_methods,
    split_commas,
)
from reconstruct.errors import ConfigError, UnknownNameError, UsageError

FILE: dict[str, Any] = {
    "extract": {"local": {"name": "d2net", "max_edge": 800, "multiscale": True}},
    "match": {"method": "mutual_nn", "ratio": 0.9},
    "refine": {"method": "multiview"},
}


def settings(*texts: str) -> dict[str, dict[str, Any]]:
    return {method.label: dict(method.settings) for method in parse_methods(texts)}


def test_names_of_extractors_and_matchers() -> None:
    assert settings("sift, d2net", "disk+mutual_nn") == {
        "sift": {"extract.local.name": "sift"},
        "d2net": {"extract.local.name": "d2net"},
        "disk+mutual_nn": {
            "extract.local.name": "kornia",
            "extract.local.model": "disk",
            "match.method": "mutual_nn",
        },
    }


def test_settings_under_a_label() -> None:
    assert settings("up=name=sift,upright=true,match.ratio=0.8,refine=null") == {
        "up": {
            "extract.local.name": "sift",
            "extract.local.upright": True,
            "match.ratio": 0.8,
            "refine": None,
        }
    }


def test_commas_inside_brackets_and_quotes_part_nothing() -> None:
    parts = ["a={x: 1, y: [2, 3]}", "b='c, d'", "e="]
    assert split_commas(",".join(parts)) == parts


def test_another_extractor_keeps_the_size_of_the_photos_alone() -> None:
    (sift,) = parse_methods(["sift"])
    assert overrides_for(sift, FILE) == {"extract.local": {"name": "sift", "max_edge": 800}}


def test_the_files_own_extractor_keeps_its_settings() -> None:
    (own,) = parse_methods(["strict=match.ratio=0.8"])
    assert overrides_for(own, FILE) == {
        "extract.local": {"name": "d2net", "max_edge": 800, "multiscale": True},
        "match.ratio": 0.8,
    }


def test_another_matcher_takes_nothing_over() -> None:
    method = MethodSpec(label="m", settings={"match.method": "dense"})
    assert overrides_for(method, FILE)["match"] == {}
    method = MethodSpec(label="m", settings={"match.method": "mutual_nn"})
    assert "match" not in overrides_for(method, FILE)


@pytest.mark.parametrize(
    ("texts", "error", "told"),
    [
        ([], UsageError, "--methods sift,d2net"),
        ([" , "], UsageError, "no method"),
        (["sfit"], UnknownNameError, "sift"),
        (["sift+neural"], UnknownNameError, "mutual_nn"),
        (["sift,sift"], UsageError, "twice"),
        (["ratio=0.8"], UsageError, "LABEL=KEY=VALUE"),
        (["../up=name=sift"], UsageError, "LABEL=KEY=VALUE"),
        (["up=name=sift,upright"], ConfigError, "upright"),
    ],
)
def test_what_is_no_method_is_told(texts: list[str], error: type[Exception], told: str) -> None:
    with pytest.raises(error, match=told):
        parse_methods(texts)
