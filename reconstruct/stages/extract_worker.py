"""Photos -> features, and rows of global descriptors: the work of stage `extract`."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from reconstruct import features
from reconstruct.datasets import Dataset
from reconstruct.errors import ImageError
from reconstruct.features.selection import drop_masked
from reconstruct.images import (
    decode_alpha,
    decode_image,
    has_alpha,
    image_size,
    read_image_bytes,
    to_grey,
)
from reconstruct.orientation import AS_STORED, stored_features, upright
from reconstruct.parallel import ahead
from reconstruct.stages.compact import Compactor
from reconstruct.stages.extract_settings import ExtractConfig, Networks
from reconstruct.stages.keyed import Result, Wanted
from reconstruct.stages.photo_contents import (
    ALPHA,
    Identities,
    PhotoContents,
    hash_if_readable,
    mask_path,
    turned_by,
    used_orientation,
)
from reconstruct.storage.features import FeatureStore
from reconstruct.storage.shard_file import Record
from reconstruct.storage.turns import FoundTurn
from reconstruct.types import ImageArray, LocalFeatures

LARGE_PIXELS = 50_000_000
"""Photos of more pixels are decoded one at a time: some 500 MB each."""
_ONE_LARGE = threading.Lock()


@dataclass(frozen=True, slots=True, eq=False)
class Loaded:
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

    A record is stored under the fingerprint of the bytes that were decoded. If a photo has changed
    since the run planned, that is not the expected one, and the next run extracts the photo again.
    """

    dataset: Dataset
    config: ExtractConfig
    networks: Networks
    compact: Compactor
    identities: Identities

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
    ) -> Iterator[tuple[Loaded, LocalFeatures, NDArray[Any] | None] | Result]:
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
        self, batch: list[Loaded]
    ) -> tuple[list[LocalFeatures], Sequence[NDArray[Any] | None]]:
        prepared = [item.prepared for item in batch]
        if self.networks.describer is None:
            return self.networks.extractor.extract(prepared), [None] * len(batch)
        return self.networks.describer.extract(prepared, [item.described for item in batch])

    def load(self, wanted: Wanted) -> Loaded | Result:
        """A photo made ready for the network, or why it cannot be."""
        path = self.dataset.path(wanted.key)
        try:
            size = image_size(path, max_megapixels=self.config.max_megapixels)
            with _ONE_LARGE if size[0] * size[1] > LARGE_PIXELS else nullcontext():
                return self._load(wanted, path)
        except ImageError as error:
            return Result(wanted.key, skipped=str(error).removeprefix(f"{path}: "))

    def _load(self, wanted: Wanted, path: Path) -> Loaded:
        name, extractor, describer = wanted.key, self.networks.extractor, self.networks.describer
        data = read_image_bytes(path)
        image = decode_image(data, str(path), max_megapixels=self.config.max_megapixels)
        mask, mask_hash = self._mask(name, image, data)
        file, prepared = None, None
        if isinstance(extractor, features.ReadsFiles):
            prepared = extractor.prepare_file(self.dataset.root, name)
            file = [hash_if_readable(extractor.file(self.dataset.root, name))]
        photo = PhotoContents(
            image=hashlib.sha256(data).hexdigest(),
            mask=mask_hash,
            orientation=used_orientation(data, self.config),
            file=file,
        )
        orientation = self.identities.orientation(name, photo)
        seen = upright(image, orientation)
        described = describer.prepare(seen) if describer is not None else None
        rows = self.identities.rows([photo.image, *turned_by(orientation)])
        fingerprints = self.identities.features(photo.contents(orientation)), rows
        if file is not None:  # made from the picture as stored
            orientation = AS_STORED
        else:
            prepared = extractor.prepare(seen)
        size = (image.shape[1], image.shape[0])
        return Loaded(wanted, fingerprints, prepared, described, mask, size, orientation)

    def _mask(
        self, name: str, image: ImageArray, photo: bytes
    ) -> tuple[ImageArray | None, str | None]:
        path = mask_path(self.dataset, name)
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


def _batches(items: Iterable[Loaded | Result], batch: int) -> Iterator[list[Loaded] | Result]:
    """Batches of consecutive items of one shape. None crosses the end of a chunk, so that resumed
    runs and workers form the same batches. Results pass through in their place.
    """
    current: list[Loaded] = []
    for item in items:
        if current and not (
            isinstance(item, Loaded)
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
