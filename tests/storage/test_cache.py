"""What is kept in memory."""

from __future__ import annotations

import numpy as np

from reconstruct.storage.cache import Cache


def loads_of(names: str, limit: int, most: int | None = None) -> str:
    loads: list[str] = []

    def load(name: str) -> np.ndarray:
        loads.append(name)
        return np.zeros(10, np.uint8)

    cache = Cache(load, limit, most)
    for name in names:
        assert cache[name].nbytes == 10
    return "".join(loads)


def test_the_least_recently_used_goes_first() -> None:
    assert loads_of("abacab", limit=25) == "abcb"
    assert loads_of("abcabc", limit=30) == "abc"
    assert loads_of("abcdab", limit=1000, most=4) == "abcd"
    assert loads_of("abcdab", limit=1000, most=3) == "abcdab"


def test_a_pair_stays_whatever_its_size() -> None:
    assert loads_of("abab", limit=1) == "ab"
    assert loads_of("abab", limit=1000, most=1) == "ab"
