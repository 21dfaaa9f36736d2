"""Matching of many pairs: in an order that seldom reads an image twice, and in parallel on a
CPU."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from reconstruct.matching import Matcher
from reconstruct.parallel import side_by_side
from reconstruct.storage.cache import Cache, Sized
from reconstruct.types import ImagePair, LocalFeatures, Matches

TILE = 16
"""Number of images along each side of a tile of pairs."""
KEPT = 4 * TILE
"""Images that are kept for their next pair: `tiled` pairs need half of them."""


def match_pairs(
    matcher: Matcher,
    pairs: Sequence[ImagePair],
    load: Callable[[str], LocalFeatures],
    *,
    cache_mb: int = 2048,
) -> Iterator[tuple[ImagePair, Matches]]:
    """The matches of each of ``pairs``, in their order (`tiled` is one that reads images seldom).

    A pair has a thread of its own: small products shared by several threads wait at each other's
    barriers, and beside other work on the machine they do little else. On a GPU the threads keep
    its queue filled.

    Args:
        matcher: see `reconstruct.matching.create`.
        pairs: names of two images each.
        load: name -> the image's features, at least the arrays that the matcher reads; called by
            the caller's thread, once an image as long as its prepared form stays in the cache.
        cache_mb: memory for prepared images.
    """

    return match_prepared(matcher, pairs, prepared_images(matcher, load, cache_mb))


def prepared_images(
    matcher: Matcher, load: Callable[[str], LocalFeatures], cache_mb: int
) -> Cache[Sized]:
    """Images by name as ``matcher`` takes them, the last ones kept."""

    def prepare(name: str) -> Sized:
        return matcher.prepare(load(name))

    return Cache(prepare, cache_mb << 20, KEPT)


def match_prepared(
    matcher: Matcher, pairs: Sequence[ImagePair], prepared: Cache[Sized]
) -> Iterator[tuple[ImagePair, Matches]]:
    """As `match_pairs`, with `prepared_images` that may have served other pairs before."""

    def match(both: tuple[Sized, Sized]) -> Matches:
        return matcher.match(*both)

    images = ((prepared[first], prepared[second]) for first, second in pairs)
    yield from zip(pairs, side_by_side(match, images), strict=True)


def tiled(pairs: Sequence[ImagePair], tile: int = TILE) -> list[ImagePair]:
    """``pairs`` in an order in which a cache of 2 x ``tile`` images seldom misses."""
    number = {name: i for i, name in enumerate(sorted({name for pair in pairs for name in pair}))}

    def place(pair: ImagePair) -> tuple[int, int, int, int]:
        i, j = number[pair[0]], number[pair[1]]
        return i // tile, j // tile, i, j

    return sorted(pairs, key=place)
