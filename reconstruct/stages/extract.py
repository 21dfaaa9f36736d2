"""Extract: photos -> features/ (and global/, what global descriptors are made of).

Each image is keyed by its content, its mask and the extractor's identity; images that cannot be
read are named, skipped, and tried again by the next run. Loader threads decode and resize while
the network works on the images before.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Union

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from reconstruct import features
from reconstruct.config import NotIdentity, Section
from reconstruct.errors import ArtifactError, DataError, ImageError
from reconstruct.features.selection import drop_masked
from reconstruct.images import read_image, to_grey
from reconstruct.parallel import ahead
from reconstruct.retrieval.describers import Describer, GlobalConfig, create_describer
from reconstruct.stages import Context, Plan
from reconstruct.stages.compact import CompactConfig, Compaction
from reconstruct.storage.features import FeatureStore
from reconstruct.storage.shards import (
    Record,
    ShardStore,
    ShardWriter,
    clean_temporaries,
    shard_size,
)
from reconstruct.types import ImageArray, LocalFeatures
from reconstruct.workspace import file_hash, fingerprint

logger = logging.getLogger(__name__)

if TYPE_CHECKING:
    LocalConfig = Section
else:  # one of the registered extractors' settings, told apart by `name`
    _choices = tuple(features.config_class(name) for name in features.EXTRACTORS)
    LocalConfig = Annotated[Union[_choices], Field(discriminator="name")]  # noqa: UP007


class ExtractConfig(Section):
    """Section ``extract``."""

    local: LocalConfig
    """The extractor of local features and its settings."""
    global_: GlobalConfig | None = Field(None, alias="global")
    """Global descriptors, for pairs from retrieval; from the same forward pass where the local
    extractor is d2net."""
    compact: CompactConfig = CompactConfig()
    """How descriptors are stored."""
    loaders: Annotated[int, NotIdentity] = Field(2, ge=1)
    """Threads that decode and resize."""
    batch_size: Annotated[int, NotIdentity] = Field(1, ge=1)
    """Images of equal size that go through the network together (pays on a GPU)."""


@dataclass(frozen=True, slots=True, eq=False)
class _Loaded:
    name: str
    prepared: Any
    own: Any  # what a describer needs beside it
    mask: ImageArray | None


class Extract:
    """The stage; later stages ask it for names, fingerprints and features."""

    name = "extract"

    def __init__(self, context: Context, config: ExtractConfig) -> None:
        self.context = context
        self.config = config
        self.store = FeatureStore(context.workspace.features)
        self.rows = ShardStore(context.workspace.global_)
        self._extractor: features.Extractor | None = None
        self._describer: Describer | None = None
        self._wanted: dict[str, str] | None = None
        self._wanted_rows: dict[str, str] | None = None

    @property
    def extractor(self) -> features.Extractor:
        """The extractor, loaded when first asked for."""
        if self._extractor is None:
            self._extractor = features.create(self.config.local, self.context.device)
        return self._extractor

    def wanted(self) -> dict[str, str]:
        """Image name -> fingerprint that its features must have, for all images of the data set."""
        if self._wanted is None:
            identity, stored = self.extractor.identity(), self.compaction.identity()
            self._wanted = {}
            for name in self.context.dataset.names:
                mask = self._mask_path(name)
                hashes = [_content(self.context.dataset.path(name)), mask and _content(mask)]
                if isinstance(self.extractor, features.ReadsFiles):
                    source = self.extractor.file(self.context.dataset.root, name)
                    hashes.append(_content(source))
                self._wanted[name] = fingerprint("features", identity, stored, *hashes)
        return self._wanted

    @property
    def compaction(self) -> Compaction:
        """How descriptors become what is stored."""
        return Compaction(self.context, self.config.compact, self.extractor.identity())

    @property
    def describer(self) -> Describer | None:
        """What makes rows of global descriptors, made when first asked for; None without them."""
        if self._describer is None and self.config.global_ is not None:
            self._describer = create_describer(
                self.config.global_, self.extractor, self.context.device
            )
        return self._describer

    def wanted_rows(self) -> dict[str, str]:
        """Image name -> fingerprint that its rows in global/ must have; empty without them."""
        if self._wanted_rows is None:
            self._wanted_rows = {}
            identity = None if self.describer is None else self.describer.identity()
            for name in self.context.dataset.names if identity is not None else ():
                content = _content(self.context.dataset.path(name))
                self._wanted_rows[name] = fingerprint("rows", identity, content)
        return self._wanted_rows

    def available(self) -> list[str]:
        """Sorted names of the images whose features (and rows, if any) are up to date."""
        todo = set(self._todo())
        return [name for name in self.wanted() if name not in todo]

    def to_map(self) -> list[str]:
        """Sorted names of the available images that are no queries."""
        queries = self.context.dataset.query_names
        return [name for name in self.available() if name not in queries]

    def _todo(self) -> list[str]:
        have, rows = self.store.fingerprints(), self.rows.fingerprints()
        wanted_rows = self.wanted_rows()
        return [
            name
            for name, value in self.wanted().items()
            if have.get(name) != value or rows.get(name) != wanted_rows.get(name, rows.get(name))
        ]

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
        self.rows.discard(lambda key: True)

    def run(self) -> None:
        """Extract what is missing. Raises DataError if no image at all can be read."""
        clean_temporaries(self.store.folder)
        clean_temporaries(self.rows.folder)
        if not self.compaction.ready():
            self.compaction.learn(list(self.wanted()), self._descriptors)
            self._wanted = None  # the basis is part of the fingerprints
        todo = self._todo()
        size = shard_size(len(self.wanted()), 4, 16)
        with self.context.reporter.task(self.name, len(todo), "images") as advance:
            self._extract(todo, size, advance)
        self.store.compact()
        self.rows.compact()
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

    def _extract(self, todo: list[str], size: int, advance: Callable[[], None]) -> None:
        stores = ((self.store, self.wanted()), (self.rows, self.wanted_rows()))
        missing = [
            {name for name, value in wanted.items() if store.fingerprints().get(name) != value}
            for store, wanted in stores
        ]
        writers = [ShardWriter(store, size) for store, _ in stores]
        for name, *records in self._records(todo, size, advance):
            for record, writer, names in zip(records, writers, missing, strict=True):
                if record is not None and name in names:
                    writer.add(record)
        for writer in writers:
            writer.flush()

    def _records(
        self, todo: list[str], size: int, advance: Callable[[], None]
    ) -> Iterator[tuple[str, Record, Record | None]]:
        compact = self.compaction.apply()
        loaded = self._readable(ahead(self._load, todo, self.config.loaders), advance)
        for batch in _batches(loaded, self.config.batch_size, size):
            for item, found, rows in zip(batch, *self._pass(batch), strict=True):
                kept = found if item.mask is None else drop_masked(found, item.mask)
                kept = replace(kept, descriptors=compact(kept.descriptors))
                advance()
                local = FeatureStore.record(item.name, self.wanted()[item.name], kept)
                yield item.name, local, rows

    def _pass(self, batch: list[_Loaded]) -> tuple[list[LocalFeatures], list[Record | None]]:
        prepared = [item.prepared for item in batch]
        if self.describer is None:
            return self.extractor.extract(prepared), [None] * len(batch)
        found, rows = self.describer.extract(prepared, [item.own for item in batch])
        return found, [
            Record(item.name, self.wanted_rows()[item.name], {"rows": part})
            for item, part in zip(batch, rows, strict=True)
        ]

    def _load(self, name: str) -> _Loaded | tuple[str, str]:
        path = self.context.dataset.path(name)
        try:
            image = read_image(path)
            own = self.describer.prepare(image) if self.describer is not None else None
            return _Loaded(name, self._prepare(name, image), own, self._mask(name, image))
        except ImageError as error:
            return name, str(error).removeprefix(f"{path}: ")

    def _descriptors(self, name: str) -> NDArray[Any] | None:
        item = self._load(name)
        if not isinstance(item, _Loaded):
            return None
        return self.extractor.extract([item.prepared])[0].descriptors

    def _prepare(self, name: str, image: ImageArray) -> Any:
        if isinstance(self.extractor, features.ReadsFiles):
            return self.extractor.prepare_file(self.context.dataset.root, name)
        return self.extractor.prepare(image)

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


def _content(path: Path) -> str | None:
    try:
        return file_hash(path)
    except ArtifactError:
        return None  # to read it as an image will say why, and skip it


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
