"""What setup.cfg says of other packages."""

from __future__ import annotations

import configparser
import re
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_the_oldest_versions_are_those_that_setup_cfg_allows() -> None:
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    required = setup["options"]["install_requires"].split()
    lines = (ROOT / ".ci" / "oldest.txt").read_text(encoding="utf-8").splitlines()
    pinned = dict(line.split("==") for line in lines if not line.startswith("#"))
    for requirement in required:
        found = re.match(r"([\w-]+)>=([\d.]+)", requirement)
        assert found, f"{requirement}: has no oldest version"
        name, bound = found.groups()
        assert f"{pinned.pop(name)}.".startswith(f"{bound}."), name
    assert pinned == {}
