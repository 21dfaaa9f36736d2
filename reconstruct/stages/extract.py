"""Extract: photos -> features/ (and global/, what global descriptors are made of).

Each image is keyed by its content, its mask and the extractor's identity; images that cannot be
read are named, skipped, and tried again by the next run. Loader threads decode and resize while
the network works on the images before.
"""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self, Union

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from reconstruct import features
from reconstruct.config import NotIdentity, Section
from reconstruct.datasets import Dataset
from reconstruct.errors import ArtifactError, DataError, ImageError
from reconstruct.features.selection import drop_masked
from reconstruct.images import (
    MAX_MEGAPIXELS,
    decode_alpha,
    decode_image,
    exif_orientation,
    has_alpha,
    image_size,
    read_image_bytes,
    to_grey,
)
from reconstruct.orientation import AS_STORED, stored_features, turned_further, upright
from reconstruct.parallel import ahead
from reconstruct.retrieval.describers import Describer, GlobalConfig, create_describer
from reconstruct.stages import Context
from reconstruct.stages.compact import CompactConfig, Compaction, Compactor
from reconstruct.stages.keyed import KeyedStage, Result, Wanted
from reconstruct.stages.photos import KnownPhotos
from reconstruct.storage.features import FeatureStore
from reconstruct.storage.shards import Record, ShardStore
from reconstruct.storage.turns import FoundTurn, read_turns
from reconstruct.types import ImageArray, LocalFeatures
from reconstruct.workspace import file_hash, fingerprint

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
    extractor is d2net, or has it among its parts."""
    compact: CompactConfig = CompactConfig()
    """How descriptors are stored."""
    orientation: Literal["exif", "stored", "search"] = "exif"
    """exif: the network sees a photo turned as its EXIF data say, and keypoints are given in pixels
    of the picture as stored; stored: it sees the stored picture; search: as exif, and photos that
    stay without a match to the others after `verify` are tried in the three other turns."""
    max_megapixels: Annotated[float, NotIdentity] = Field(MAX_MEGAPIXELS, gt=0)
    """Larger photos are skipped."""
    loaders: Annotated[int, NotIdentity] = Field(2, ge=1)
    """Threads that decode and resize."""
    batch_size: Annotated[int, NotIdentity] = Field(1, ge=1)
    """Images of equal size that go through the network together (pays on a GPU)."""

    @model_validator(mode="after")
    def _one_kind_for_a_basis(self) -> Self:
        if self.compact.dim is not None and self.local.identity()["name"] == "together":
            raise ValueError("`compact.dim` is for one kind of descriptor, not for `together`")
        return self


class Extract(KeyedStage):
    """The stage; later stages ask it for names, fingerprints and features."""

    name = "extract"
    unit = "images"
    shard = (4, 16)

    def __init__(self, context: Context, config: ExtractConfig) -> None:
        self.features = FeatureStore(context.workspace.features)
        super().__init__(context, self.features)
        self.config = config
        self.rows = ShardStore(context.workspace.global_)
        self.networks = Networks(config, context.device)
        self.found_turns = context.workspace.turns / "found.json"
        self.unturned: dict[str, str] = {}
        """Image name -> fingerprint of its features without the turn that was found for it."""
        self._row_fingerprints: dict[str, str] | None = None
        self._hashes: dict[str, str | None] = {}
        self._available: list[str] | None = None

    @property
    def extractor(self) -> features.Extractor:
        """The extractor, loaded when first asked for."""
        return self.networks.extractor

    @property
    def describer(self) -> Describer | None:
        """What makes rows of global descriptors; None without them."""
        return self.networks.describer

    @property
    def compaction(self) -> Compaction:
        """How descriptors become what is stored."""
        return Compaction(self.context, self.config.compact, self.extractor.identity())

    def find_fingerprints(self) -> dict[str, str]:
        """Image name -> fingerprint of its features, for all images of the data set."""
        identities, names = self._identities(), self.context.dataset.names
        older, stored = identities.as_float32(), self.features.fingerprints()
        found = {}
        self._row_fingerprints = {}
        threads = max(self.config.loaders, os.cpu_count() or 1)
        for name, photo in zip(names, ahead(self._photo, names, threads), strict=True):
            self._hashes[name] = photo.image
            self.unturned[name] = identities.features(photo.contents(photo.orientation))
            orientation = identities.orientation(name, photo)
            contents = photo.contents(orientation)
            found[name] = identities.features(contents)
            if older is not None and stored.get(name) == older.features(contents):
                found[name] = older.features(contents)
            if self.describer is not None:
                described = [photo.image, *_turned(orientation)]
                self._row_fingerprints[name] = identities.rows(described)
        return found

    def turned(self) -> dict[str, int]:
        """Image name -> quarter turns clockwise that stage `turn` found for it, and that hold."""
        turns = self._identities().turns
        return {
            name: turns[name].quarter_turns
            for name, value in self.unturned.items()
            if name in turns and turns[name].features == value
        }

    def _photo(self, name: str) -> _Photo:
        """Hashes of all that an image's features are made of (None: unreadable)."""
        dataset, extractor = self.context.dataset, self.extractor
        image, orientation = None, AS_STORED
        mask = _mask_hash(dataset, name)
        # One that cannot be read as a file is read as an image later, which says why, and skips it.
        with suppress(ImageError):
            data = read_image_bytes(dataset.path(name))
            image = hashlib.sha256(data).hexdigest()
            orientation = _orientation(data, self.config)
            if mask is None and dataset.alpha_masks and has_alpha(data):
                mask = ALPHA
        file = None
        if isinstance(extractor, features.ReadsFiles):
            file = [_hash(extractor.file(dataset.root, name))]
        return _Photo(image=image, mask=mask, orientation=orientation, file=file)

    def photos(self) -> KnownPhotos:
        """The photos, for stages that look at them again."""
        self.fingerprints()
        root, limit = self.context.dataset.root, self.config.max_megapixels
        return KnownPhotos(root, self._hashes, limit)

    def row_fingerprints(self) -> Mapping[str, str]:
        """Image name -> fingerprint of its rows in global/; empty without global descriptors."""
        self.fingerprints()
        return self._row_fingerprints or {}

    def _identities(self) -> _Identities:
        describer = self.describer
        return _Identities(
            extractor=self.extractor.identity(),
            stored=self.compaction.identity(),
            describer=None if describer is None else describer.identity(),
            turns=read_turns(self.found_turns) if self.config.orientation == "search" else {},
        )

    def further_outputs(self) -> list[tuple[ShardStore, Mapping[str, str]]]:
        """The rows of global descriptors, where there are any."""
        return [(self.rows, self.row_fingerprints())] if self.config.global_ is not None else []

    def available(self) -> list[str]:
        """Sorted names of the images whose features (and rows, if any) are up to date."""
        if self._available is None or not self.settled:
            missing = self.missing()
            self._available = [name for name in self.known_fingerprints() if name not in missing]
        return self._available

    def names(self) -> list[str]:
        """Sorted names of the images that later stages work on.

        Those with features once the stage has settled, before that all: as far as can be foreseen.
        """
        return self.available() if self.settled else list(self.known_fingerprints())

    def to_map(self) -> list[str]:
        """`names` without the queries: the images to map."""
        queries = self.context.dataset.query_names
        return [name for name in self.names() if name not in queries]

    def complete(self) -> bool:
        """Whether there is an image to go on with: one that cannot be read holds up no other."""
        return bool(self.available())

    def prepare(self) -> None:
        """Learn the basis of compact descriptors, on which their fingerprints depend."""
        compaction = self.compaction
        if not compaction.ready():
            compaction.learn(list(self.context.dataset.names), self._descriptors)

    def _descriptors(self, name: str) -> NDArray[Any] | None:
        worker = self._worker(Compactor(None, "float32"))
        item = worker.load(Wanted(name, ""))
        if isinstance(item, Result):
            return None
        return self.extractor.extract([item.prepared])[0].descriptors

    def worker(self) -> ExtractWorker:
        """Reads photos and extracts their features."""
        return self._worker(self.compaction.compactor())

    def _worker(self, compact: Compactor) -> ExtractWorker:
        return ExtractWorker(
            dataset=self.context.dataset,
            config=self.config,
            networks=self.networks,
            compact=compact,
            identities=self._identities(),
        )

    def figures(self, made: int) -> dict[str, Any]:
        """How many images, and keypoints an image. Raises DataError if no image can be read."""
        names = self.available()
        if not names:
            raise DataError(
                f"{self.context.dataset.root}: none of the {len(self.known_fingerprints())} images "
                "can be read"
            )
        counts = self.features.lengths("scores")
        return {
            "images": len(names),
            "extracted_now": made,
            "mean_keypoints": round(float(np.mean([counts[name] for name in names])), 1),
        }

    def discard(self) -> None:
        """Drop all features."""
        super().discard()
        self.rows.discard(lambda key: True)


class Networks:
    """The extractor of a section ``extract`` and the describer beside it.

    Each is loaded when it is first asked for; other processes are sent the settings alone.
    """

    def __init__(self, config: ExtractConfig, device: str) -> None:
        self.config = config
        self.device = device

    def __getstate__(self) -> dict[str, Any]:
        return {"config": self.config, "device": self.device}

    @cached_property
    def extractor(self) -> features.Extractor:
        """The extractor of local features."""
        return features.create(self.config.local, self.device)

    @cached_property
    def describer(self) -> Describer | None:
        """What makes rows of global descriptors; None without them."""
        if self.config.global_ is None:
            return None
        return create_describer(self.config.global_, self.extractor, self.device)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Photo:
    """What the features of a photo are made of: hashes of the photo (None: unreadable), of its mask
    (None: it has none) and, in a list, of the file that its features are read from if there is one;
    EXIF orientation by which the photo is turned.
    """

    image: str | None
    mask: str | None
    orientation: int
    file: list[str | None] | None = None

    def contents(self, orientation: int) -> list[str | None]:
        """All of it, as the fingerprint has it, turned by ``orientation``."""
        return [self.image, self.mask, *_turned(orientation), *(self.file or [])]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Identities:
    """What decides features and rows beside the content of the files."""

    extractor: Mapping[str, Any]
    stored: Sequence[Any]
    describer: Any
    turns: Mapping[str, FoundTurn]

    def orientation(self, name: str, photo: _Photo) -> int:
        """EXIF orientation by which the extractor's input is turned."""
        found = self.turns.get(name)
        if found is None or found.features != self.features(photo.contents(photo.orientation)):
            return photo.orientation
        return turned_further(photo.orientation, found.quarter_turns)

    def as_float32(self) -> _Identities | None:
        """The same with float32 descriptors, the earlier default, which hold more than float16."""
        dim, encoding, basis = self.stored
        return replace(self, stored=[dim, "float32", basis]) if encoding == "float16" else None

    def features(self, contents: Sequence[str | None]) -> str:
        return fingerprint("features", self.extractor, self.stored, *contents)

    def rows(self, contents: Sequence[str | None]) -> str:
        return fingerprint("rows", self.describer, *contents)


@dataclass(frozen=True, slots=True, eq=False)
class _Loaded:
    """A photo as the extractor takes it.

    Args:
        wanted: What is wanted of it.
        fingerprints: Those of its features and of its rows, by the bytes that were read.
        prepared: Input of the extractor.
        described: Input of the describer beside it.
        mask: (H, W) uint8, zero where there are to be no keypoints.
        size: (width, height) of the stored picture.
        orientation: EXIF orientation by which the extractor's input was turned.
    """

    wanted: Wanted
    fingerprints: tuple[str, str]
    prepared: Any
    described: Any
    mask: ImageArray | None
    size: tuple[int, int]
    orientation: int


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ExtractWorker:
    """Photos -> features, and rows of global descriptors.

    A record is stored under the fingerprint of the bytes that were decoded. If a photo changed
    since the run looked at it, that is another one than expected, and the next run extracts it.
    """

    dataset: Dataset
    config: ExtractConfig
    networks: Networks
    compact: Compactor
    identities: _Identities

    def __call__(self, wanted: Sequence[Wanted]) -> Iterator[Result]:
        """Results for images."""
        for found in self.features(wanted):
            if isinstance(found, Result):
                yield found
                continue
            item, local, rows = found
            name = item.wanted.key
            records = [FeatureStore.record(name, item.fingerprints[0], local)]
            if rows is not None:
                records.append(Record(name, item.fingerprints[1], {"rows": rows}))
            changed = item.wanted.fingerprint != item.fingerprints[0]
            why = "it changed while the run was reading it; run again" if changed else None
            yield Result(name, tuple(records), why)

    def features(
        self, wanted: Sequence[Wanted]
    ) -> Iterator[tuple[_Loaded, LocalFeatures, NDArray[Any] | None] | Result]:
        """What was loaded of an image, its features as they are stored, and rows for its global
        descriptor; or why there are none."""
        loaded = ahead(self.load, wanted, self.config.loaders)
        for batch in _batches(loaded, self.config.batch_size):
            if isinstance(batch, Result):
                yield batch
                continue
            for item, local, rows in zip(batch, *self._extract(batch), strict=True):
                kept = stored_features(local, item.size, item.orientation)
                kept = kept if item.mask is None else drop_masked(kept, item.mask)
                yield item, replace(kept, descriptors=self.compact(kept.descriptors)), rows

    def turned(self, name: str, unturned: str, quarter_turns: int) -> LocalFeatures | Result:
        """The features of an image as they are if it is turned, or why there are none.

        Args:
            name: The image.
            unturned: Fingerprint of its features without a turn.
            quarter_turns: Clockwise, beyond what its EXIF data say; 0 to 3.
        """
        turns = {name: FoundTurn(unturned, quarter_turns)}
        worker = replace(self, identities=replace(self.identities, turns=turns))
        (found,) = worker.features([Wanted(name, "")])
        return found if isinstance(found, Result) else found[1]

    def _extract(
        self, batch: list[_Loaded]
    ) -> tuple[list[LocalFeatures], Sequence[NDArray[Any] | None]]:
        prepared = [item.prepared for item in batch]
        if self.networks.describer is None:
            return self.networks.extractor.extract(prepared), [None] * len(batch)
        return self.networks.describer.extract(prepared, [item.described for item in batch])

    def load(self, wanted: Wanted) -> _Loaded | Result:
        """A photo made ready for the network, or why it cannot be."""
        path = self.dataset.path(wanted.key)
        try:
            size = image_size(path, max_megapixels=self.config.max_megapixels)
            with _ONE_LARGE if size[0] * size[1] > LARGE_PIXELS else nullcontext():
                return self._load(wanted, path)
        except ImageError as error:
            return Result(wanted.key, skipped=str(error).removeprefix(f"{path}: "))

    def _load(self, wanted: Wanted, path: Path) -> _Loaded:
        name, extractor, describer = wanted.key, self.networks.extractor, self.networks.describer
        data = read_image_bytes(path)
        image = decode_image(data, str(path), max_megapixels=self.config.max_megapixels)
        mask, mask_hash = self._mask(name, image, data)
        file, prepared = None, None
        if isinstance(extractor, features.ReadsFiles):
            prepared = extractor.prepare_file(self.dataset.root, name)
            file = [_hash(extractor.file(self.dataset.root, name))]
        photo = _Photo(
            image=hashlib.sha256(data).hexdigest(),
            mask=mask_hash,
            orientation=_orientation(data, self.config),
            file=file,
        )
        orientation = self.identities.orientation(name, photo)
        seen = upright(image, orientation)
        described = describer.prepare(seen) if describer is not None else None
        rows = self.identities.rows([photo.image, *_turned(orientation)])
        fingerprints = self.identities.features(photo.contents(orientation)), rows
        if file is not None:  # made from the picture as stored
            orientation = AS_STORED
        else:
            prepared = extractor.prepare(seen)
        size = (image.shape[1], image.shape[0])
        return _Loaded(wanted, fingerprints, prepared, described, mask, size, orientation)

    def _mask(
        self, name: str, image: ImageArray, photo: bytes
    ) -> tuple[ImageArray | None, str | None]:
        path = _mask_path(self.dataset, name)
        if path is None:
            if not (self.dataset.alpha_masks and has_alpha(photo)):
                return None, None
            limit = self.config.max_megapixels
            return decode_alpha(photo, str(self.dataset.path(name)), max_megapixels=limit), ALPHA
        data = read_image_bytes(path)
        mask = to_grey(decode_image(data, str(path), max_megapixels=self.config.max_megapixels))
        if mask.shape != image.shape[:2]:
            raise ImageError(f"its mask {path} has another size than the image")
        return mask, hashlib.sha256(data).hexdigest()


ALPHA = "alpha"
"""Stands for the hash of a mask that is the photo's own alpha channel."""
LARGE_PIXELS = 50_000_000
"""Photos of more pixels are decoded one at a time: some 500 MB each."""
_ONE_LARGE = threading.Lock()


def _orientation(data: bytes, config: ExtractConfig) -> int:
    """EXIF orientation by which a photo is turned for the network."""
    return exif_orientation(data) if config.orientation == "exif" else AS_STORED


def _turned(orientation: int) -> list[str]:
    """What a turned photo's fingerprint has more; nothing for others, whose features stay valid."""
    return [] if orientation == AS_STORED else [f"turned by EXIF orientation {orientation}"]


def _mask_path(dataset: Dataset, name: str) -> Path | None:
    if dataset.masks is None:
        return None
    found = (dataset.masks / f"{n}.png" for n in (dataset.original(name), name))  # COLMAP's rule
    return next((path for path in found if path.is_file()), None)


def _mask_hash(dataset: Dataset, name: str) -> str | None:
    path = _mask_path(dataset, name)
    return None if path is None else _hash(path)


def _hash(path: Path) -> str | None:
    try:
        return file_hash(path)
    except ArtifactError:
        return None  # to read it as an image will say why, and skip it


def _batches(items: Iterable[_Loaded | Result], batch: int) -> Iterator[list[_Loaded] | Result]:
    """Runs of consecutive items of one shape; none crosses the end of a chunk, so that a run that
    goes on after a kill, and workers, form the same batches. Results pass through in their place.
    """
    current: list[_Loaded] = []
    for item in items:
        if current and not (
            isinstance(item, _Loaded)
            and len(current) < batch
            and current[0].wanted.chunk == item.wanted.chunk
            and current[0].prepared.shape == item.prepared.shape
        ):
            yield current
            current = []
        if isinstance(item, Result):
            yield item
        else:
            current.append(item)
    if current:
        yield current
