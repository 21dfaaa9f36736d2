"""Extract: photos -> features/.

Each image is keyed by its content, its mask and the extractor's identity; images that cannot be
read are named, skipped, and tried again by the next run. Loader threads decode and resize while
the network works on the images before.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar, Union

import numpy as np
from pydantic import Field

from reconstruct import features
from reconstruct.config import NotIdentity, Section
from reconstruct.errors import DataError, ImageError
from reconstruct.features.selection import drop_masked
from reconstruct.images import read_image, to_grey
from reconstruct.stages import Context, Plan
from reconstruct.storage.features import FeatureStore
from reconstruct.storage.shards import Record, clean_temporaries, shard_size, write_in_shards
from reconstruct.types import ImageArray
from reconstruct.workspace import file_hash, fingerprint

logger = logging.getLogger(__name__)
T = TypeVar("T")
R = TypeVar("R")

if TYPE_CHECKING:
    LocalConfig = Section
else:  # one of the registered extractors' settings, told apart by `name`
    _choices = tuple(features.config_class(name) for name in features.EXTRACTORS)
    LocalConfig = Annotated[Union[_choices], Field(discriminator="name")]  # noqa: UP007


class ExtractConfig(Section):
    """Section ``extract``."""

    local: LocalConfig
    """The extractor of local features and its settings."""
    loaders: Annotated[int, NotIdentity] = Field(2, ge=1)
    """Threads that decode and resize."""
    batch_size: Annotated[int, NotIdentity] = Field(1, ge=1)
    """Images of equal size that go through the network together (pays on a GPU)."""


@dataclass(frozen=True, slots=True, eq=False)
class _Loaded:
    name: str
    prepared: Any
    mask: ImageArray | None


def ahead(function: Callable[[T], R], items: Iterable[T], threads: int) -> Iterator[R]:
    """``map`` with results in order, computed by threads a bounded distance ahead."""
    source = iter(items)
    with ThreadPoolExecutor(threads) as pool:
        waiting: list[Future[R]] = [pool.submit(function, x) for x in islice(source, 2 * threads)]
        while waiting:
            done = waiting.pop(0)
            waiting.extend(pool.submit(function, x) for x in islice(source, 1))
            yield done.result()


class Extract:
    """The stage; later stages ask it for names, fingerprints and features."""

    name = "extract"

    def __init__(self, context: Context, config: ExtractConfig) -> None:
        self.context = context
        self.config = config
        self.store = FeatureStore(context.workspace.features)
        self._extractor: features.Extractor | None = None
        self._wanted: dict[str, str] | None = None

    @property
    def extractor(self) -> features.Extractor:
        """The extractor, loaded when first asked for."""
        if self._extractor is None:
            self._extractor = features.create(self.config.local, self.context.device)
        return self._extractor

    def wanted(self) -> dict[str, str]:
        """Image name -> fingerprint that its features must have, for all images of the data set."""
        if self._wanted is None:
            identity = self.extractor.identity()
            self._wanted = {}
            for name in self.context.dataset.names:
                mask = self._mask_path(name)
                hashes = [file_hash(self.context.dataset.path(name)), mask and file_hash(mask)]
                self._wanted[name] = fingerprint("features", identity, *hashes)
        return self._wanted

    def available(self) -> list[str]:
        """Sorted names of the images whose features are up to date."""
        have = self.store.fingerprints()
        return [name for name, value in self.wanted().items() if have.get(name) == value]

    def _todo(self) -> list[str]:
        have = self.store.fingerprints()
        return [name for name, value in self.wanted().items() if have.get(name) != value]

    def plan(self) -> Plan:
        """How many images lack features, and whether their old ones are stale."""
        todo, have = self._todo(), self.store.fingerprints()
        total = len(self.wanted())
        if not todo:
            return Plan("done", "up to date", 0, total)
        stale = sum(name in have for name in todo)
        why = f"{stale} changed (image, mask or settings), {len(todo) - stale} new"
        return Plan("stale" if stale else "missing", why, len(todo), total)

    def discard(self) -> None:
        """Drop all features."""
        self.store.discard(lambda key: True)

    def run(self) -> None:
        """Extract what is missing. Raises DataError if no image at all can be read."""
        clean_temporaries(self.store.folder)
        todo = self._todo()
        size = shard_size(len(self.wanted()), 4, 32)
        with self.context.reporter.task(self.name, len(todo), "images") as advance:
            for _ in write_in_shards(self.store, self._records(todo, size, advance), size):
                pass
        self.store.compact()
        names = self.available()
        if not names:
            raise DataError(
                f"{self.context.dataset.root}: none of the {len(self.wanted())} images can be read"
            )
        self.context.summary.figures[self.name] = self._figures(names, len(todo))

    def _figures(self, names: list[str], todo: int) -> dict[str, Any]:
        counts = [len(self.store.read(name, only="scores")["scores"]) for name in names]
        return {
            "images": len(names),
            "extracted_now": todo,
            "mean_keypoints": round(float(np.mean(counts)), 1),
        }

    def _records(self, todo: list[str], size: int, advance: Callable[[], None]) -> Iterator[Record]:
        loaded = self._readable(ahead(self._load, todo, self.config.loaders), advance)
        for batch in _batches(loaded, self.config.batch_size, size):
            for item, found in zip(
                batch, self.extractor.extract([b.prepared for b in batch]), strict=True
            ):
                kept = found if item.mask is None else drop_masked(found, item.mask)
                advance()
                yield FeatureStore.record(item.name, self.wanted()[item.name], kept)

    def _load(self, name: str) -> _Loaded | tuple[str, str]:
        path = self.context.dataset.path(name)
        try:
            image = read_image(path)
            return _Loaded(name, self.extractor.prepare(image), self._mask(name, image))
        except ImageError as error:
            return name, str(error).removeprefix(f"{path}: ")

    def _readable(
        self, items: Iterable[_Loaded | tuple[str, str]], advance: Callable[[], None]
    ) -> Iterator[_Loaded]:
        for item in items:
            if isinstance(item, _Loaded):
                yield item
            else:
                advance()
                self.context.summary.skipped[item[0]] = item[1]
                logger.warning("skipped %s: %s", *item)

    def _mask_path(self, name: str) -> Path | None:
        if self.context.dataset.masks is None:
            return None
        path = self.context.dataset.masks / f"{name}.png"  # COLMAP's rule: image.jpg.png
        return path if path.is_file() else None

    def _mask(self, name: str, image: ImageArray) -> ImageArray | None:
        path = self._mask_path(name)
        if path is None:
            return None
        mask = to_grey(read_image(path))
        if mask.shape != image.shape[:2]:
            raise ImageError(f"its mask {path} has another size than the image")
        return mask


def _batches(items: Iterable[_Loaded], batch: int, shard: int) -> Iterator[list[_Loaded]]:
    """Runs of consecutive items of one shape; none crosses the end of a shard, so that a run
    that goes on after a kill forms the same batches."""
    current: list[_Loaded] = []
    in_shard = 0
    for item in items:
        full = len(current) == batch or in_shard == shard
        if current and (full or current[0].prepared.shape != item.prepared.shape):
            yield current
            current = []
        in_shard = 1 if in_shard == shard else in_shard + 1
        current.append(item)
    if current:
        yield current
