"""YAML that is meant to harm, or that PyYAML cannot build."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from reconstruct.config import parse_override, read_yaml
from reconstruct.errors import ConfigError
from reconstruct.pipeline.config import load_config
from reconstruct.yaml_text import parse_yaml

PIPELINES = Path(__file__).parents[1] / "pipelines"


def laughs(levels: int, merge: bool = False) -> str:
    """Ten aliases a level: 10 ** levels values."""
    lines = ["a0: &a0 {x: 1}"]
    for level in range(1, levels + 1):
        aliases = ", ".join([f"*a{level - 1}"] * 10)
        value = f"{{<<: [{aliases}]}}" if merge else f"[{aliases}]"
        lines.append(f"a{level}: &a{level} {value}")
    return "\n".join(lines)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 2026-13-45", r"'2026-13-45' is no timestamp(.|\n)*line 1"),
        ("x: 1\na: !!int abc", r"'abc' is no int(.|\n)*line 2"),
        ("a: !!float ''", "is no float"),
        ("a: !!bool perhaps", "'perhaps' is no bool"),
        ("a: !!timestamp no", "'no' is no timestamp"),
        ("a: !!int ''", "is no int"),
        ("a: " + "9" * 5000, r"'9{80}' is no int"),
        ("a: !!binary é", "binary"),
        ("a: !!python/object/apply:os.system [ls]", "could not determine a constructor"),
        ("[" * 5000, "nested too deeply"),
        ("[" * 200 + "]" * 200, "nested too deeply"),
        ("a: &a [*a]", "nested too deeply"),
        (laughs(9), "more than 100000 values, aliases followed"),
        (laughs(9, merge=True), "more than 100000 values, aliases followed"),
        ("a: 1\na: 2", "the key 'a' stands twice"),
    ],
)
def test_what_is_not_built_is_told_in_short(text: str, message: str) -> None:
    started = time.process_time()
    with pytest.raises(yaml.YAMLError, match=message) as error:
        parse_yaml(text)
    assert len(str(error.value)) < 400
    assert time.process_time() - started < 20


def test_aliases_and_dates_that_are_some() -> None:
    assert parse_yaml(laughs(3))["a1"] == [{"x": 1}] * 10
    assert str(parse_yaml("2026-11-25")) == "2026-11-25"
    assert parse_yaml("") is None


def test_many_keys_are_no_work() -> None:
    started = time.process_time()
    assert len(parse_yaml("\n".join(f"k{i}: 1" for i in range(2_000)))) == 2_000
    assert time.process_time() - started < 20


def test_overrides_are_read_the_same_way() -> None:
    for value in ("2026-13-45", "!!int abc", "[" * 5000):
        with pytest.raises(ConfigError, match="the value is not valid YAML"):
            parse_override(f"a.b={value}")


def test_files_that_are_none(tmp_path: Path) -> None:
    path = tmp_path / "p.yaml"
    path.write_bytes(b"a: 1\n" + b"#" * (1 << 18))
    with pytest.raises(ConfigError, match=r"p\.yaml: cannot read .*larger than"):
        read_yaml(path)
    path.write_text("- " + "x" * 100_000, encoding="utf-8")
    with pytest.raises(ConfigError, match="expected sections") as error:
        read_yaml(path)
    assert len(str(error.value)) < 400, "the input is not printed"


BEYOND: list[tuple[dict[str, Any], str]] = [
    ({"seed": 2**40}, "seed: expected a whole number below"),
    ({"seed": 10**5000}, "seed: "),
    ({"verify.min_inliers": 10**12}, "verify.min_inliers: expected a whole number below"),
    ({"extract.local": {"name": "sift", "max_keypoints": 2**31}}, "extract.local.max_keypoints"),
    ({"map.threads": 2**63}, "map.threads: expected a whole number below"),
    ({"match.ratio": float("nan")}, "match.ratio: expected a finite number, got nan"),
    ({"verify.max_error_px": float("inf")}, "verify.max_error_px: expected a finite number"),
    ({"dataset.images": "a\0b"}, "dataset.images: expected text without zero bytes"),
    ({"dataset.images": ""}, "dataset.images: "),
    ({"x" * 10_000: 1}, "unknown key"),
    ({f"key{i}": 1 for i in range(1000)}, "and 980 more mistakes"),
]


@pytest.mark.parametrize(("overrides", "message"), BEYOND, ids=[m for _, m in BEYOND])
def test_numbers_and_keys_beyond_all_ranges(overrides: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as error:
        load_config(PIPELINES / "sfm.yaml", overrides)
    assert message in str(error.value)
    assert len(str(error.value)) < 6000
