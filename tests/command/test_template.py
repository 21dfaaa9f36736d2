from __future__ import annotations

import re
from pathlib import Path

import pytest

from reconstruct.command.template import commented
from reconstruct.pipeline.config import load_config
from reconstruct.shipped import find_pipeline, pipeline_names


@pytest.mark.parametrize("name", pipeline_names())
def test_a_template_means_what_its_pipeline_means(tmp_path: Path, name: str) -> None:
    """As printed, and with all the defaults that stand in comments made settings."""
    text = commented(name)
    every_setting = re.sub(r"^( *)#(?! )", r"\1", text, flags=re.MULTILINE)
    expected = load_config(find_pipeline(name))
    for number, variant in enumerate((text, every_setting)):
        path = tmp_path / f"{number}.yaml"
        path.write_text(variant, encoding="utf-8")
        assert load_config(path) == expected
    assert "  # Photos, on an arc around the square.\n" in text or name != "demo"
