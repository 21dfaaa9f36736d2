"""Which vectors may be nearest to each other, told from products in bfloat16.

Processors with instructions for bfloat16 multiply matrices of it several times as fast as those of
float32. What rounding does to a dot product is bounded by how far it moved the vectors
(Cauchy-Schwarz):

    |a.b - a'.b'| <= |a - a'| |b| + |a'| |b - b'|

Only vectors whose product is within twice this of the largest can be the nearest one: one or two of
thousands. Between these float32 decides, so nothing is lost.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from reconstruct.lazy import lazily

if TYPE_CHECKING:
    import torch
    from torch import Tensor
else:
    torch = lazily("torch")

HEIGHT, WIDTH = 512, 2048
"""Rows and columns that are multiplied at once."""
GRAIN = 128
"""Both are multiples of this, filled up with zeros: oneDNN makes a program for each size that it
meets and keeps a thousand of them, 1 MB each."""
CROWD = 16
"""Where more than this many a vector may be the nearest one, the whole table costs less."""
SUMMING = 2.0**-24
"""Relative error of a sum in float32, for each of its terms."""
ALL = np.int16(-(2**15))
"""The least of all bits: a limit that everything passes."""


@cache
def bfloat16_is_fast(cpuinfo: Path = Path("/proc/cpuinfo")) -> bool:
    """Whether the processor has instructions for products of bfloat16 (where Linux tells), and
    torch the library that uses them, which sums in float32."""
    if not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return False
    try:
        lines = cpuinfo.read_text().splitlines()
    except OSError:
        return False
    flags = next((line.split() for line in lines if line.startswith("flags")), [])
    return not {"avx512_bf16", "amx_bf16"}.isdisjoint(flags)


@dataclass(frozen=True, slots=True, eq=False)
class Rounded:
    """(N, D) vectors in bfloat16, filled up with zeros to a multiple of `GRAIN`; how far rounding
    moved any of them, and the largest length."""

    values: Tensor
    moved: float
    length: float

    @classmethod
    def of(cls, vectors: Tensor) -> Rounded:
        """Round (N, D) float32 vectors that are on the CPU."""
        values = vectors.bfloat16()
        moved = float((vectors - values).norm(dim=1).max())
        length = float(values.norm(dim=1).max()) + moved
        filled = torch.nn.functional.pad(values, (0, 0, 0, -len(values) % GRAIN))
        return cls(filled, moved, length)


def likely_nearest(
    first: Tensor, second: Tensor, height: int = HEIGHT
) -> tuple[NDArray[np.int64], NDArray[np.int64]] | None:
    """Pairs among which are the nearest row of ``second`` to each of ``first``, and the other way
    round; every row of both is in one at least.

    Args:
        first, second: (N, D) and (M, D) float32 on the CPU, N and M above 0; similarity is the dot
            product.
        height: rows of a block of products.

    Returns:
        The rows (P,) and columns (P,) of the pairs, or None where they are too many to be of use.
    """
    a, b = Rounded.of(first), Rounded.of(second)
    error = a.moved * b.length + a.length * b.moved
    error += SUMMING * first.shape[1] * a.length * b.length
    of_rows, of_columns = np.empty(len(first), np.int16), np.full(len(second), ALL)
    places: list[NDArray[np.int64]] = []
    found: list[NDArray[np.int16]] = []
    room = CROWD * (len(first) + len(second))
    for start in range(0, len(first), height):
        products = _products(a.values[start : start + height], b.values)
        block = products[: len(first) - start, : len(second)]
        least = of_rows[start : start + height] = _limits(_largest(block, axis=1), error)
        # Those of the columns rise from block to block.
        np.maximum(of_columns, _limits(_largest(block, axis=0), error), out=of_columns)
        near = np.flatnonzero((block >= least[:, None]) | (block >= of_columns))
        places.append(near + start * len(second))
        found.append(block[np.divmod(near, len(second))])
        room -= len(near)
        if room < 0:
            return None
    rows, columns = np.divmod(np.concatenate(places), len(second))
    product = np.concatenate(found)
    keep = (product >= of_rows[rows]) | (product >= of_columns[columns])
    return rows[keep], columns[keep]


def _products(rows: Tensor, others: Tensor) -> NDArray[np.int16]:
    """The bits of the products of all ``rows`` with all ``others``."""
    starts = range(0, len(others), WIDTH)
    products = [rows @ others[start : start + WIDTH].T for start in starts]
    table = torch.cat(products, dim=1) if len(products) > 1 else products[0]
    bits: NDArray[np.int16] = table.view(torch.int16).numpy()
    return bits


def _largest(block: NDArray[np.int16], axis: int) -> NDArray[np.int16]:
    """Bits of positive numbers are in the order of the numbers, and above those of negative ones.

    Among negative ones they are not; where all are negative, `_limits` lets everything pass.
    """
    largest: NDArray[np.int16] = block.max(axis=axis)
    return largest


def _limits(top: NDArray[np.int16], error: float) -> NDArray[np.int16]:
    """The bits of the least number that may stand for one as large as that with the bits ``top``.

    error: of a product before it is stored. `ALL` where the limit is not positive.
    """
    largest = (top.astype(np.int32) << 16).view(np.float32)
    stored = np.spacing(np.abs(largest)) * 2**15  # half a step of bfloat16
    limit = largest - 2 * (stored + np.float32(error))
    bits = (limit.view(np.int32) + 0xFFFF) >> 16  # rounded up: what is stored is a bfloat16
    return np.where(limit > 0, bits.astype(np.int16), ALL)
