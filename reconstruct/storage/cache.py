"""A cache by name in bounded memory."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Generic, Protocol, TypeVar


class Sized(Protocol):
    """An object with a size in bytes: arrays, tensors, pyramids."""

    @property
    def nbytes(self) -> int:
        """Memory in bytes."""


T = TypeVar("T", bound=Sized)


class Cache(Generic[T]):
    """Items by name, the least recently used ones dropped beyond ``limit`` bytes or ``most`` items.

    Two are kept whatever their size: a pair must fit.
    """

    def __init__(self, load: Callable[[str], T], limit: int, most: int | None = None) -> None:
        self._load, self._limit, self._bytes = load, limit, 0
        self._most = most
        self._items: OrderedDict[str, T] = OrderedDict()

    def __getitem__(self, name: str) -> T:
        if name not in self._items:
            self._items[name] = item = self._load(name)
            self._bytes += item.nbytes
            while len(self._items) > 2 and self._full():
                self._bytes -= self._items.popitem(last=False)[1].nbytes
        self._items.move_to_end(name)
        return self._items[name]

    def _full(self) -> bool:
        many = self._most is not None and len(self._items) > self._most
        return many or self._bytes > self._limit
