"""Extract: photos -> features/ (and global/, what global descriptors are made of).

The features of an image are fingerprinted by its content, its mask and the extractor's identity;
images that cannot be read are named, skipped, and tried again by the next run. Loader threads
decode and resize while the network works on the images before.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reconstruct import features
from reconstruct.errors import DataError, ImageError
from reconstruct.images import has_alpha, read_image_bytes
from reconstruct.orientation import AS_STORED
from reconstruct.parallel import ahead
from reconstruct.retrieval.describers import Describer
from reconstruct.stages import Context
from reconstruct.stages.compact import Compaction, Compactor
from reconstruct.stages.extract_settings import ExtractConfig, Networks
from reconstruct.stages.extract_worker import ExtractWorker
from reconstruct.stages.keyed import KeyedStage, Result, Wanted
from reconstruct.stages.photo_contents import (
    ALPHA,
    Identities,
    PhotoContents,
    hash_if_readable,
    mask_hash,
    turned_by,
    used_orientation,
)
from reconstruct.stages.photos import KnownPhotos
from reconstruct.storage.features import FeatureStore
from reconstruct.storage.shards import ShardStore
from reconstruct.storage.turns import read_turns


class Extract(KeyedStage):
    """The stage; later stages ask it for names, fingerprints and features."""

    name = "extract"
    unit = "images"
    shard = (2, 16)

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
        return Compaction(self.context, self.config.compact, self.extractor)

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
                described = [photo.image, *turned_by(orientation)]
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

    def _photo(self, name: str) -> PhotoContents:
        """Hashes of all that an image's features are made of (None: unreadable)."""
        dataset, extractor = self.context.dataset, self.extractor
        image, orientation = None, AS_STORED
        mask = mask_hash(dataset, name)
        # One that cannot be read as a file is read as an image later, which says why, and skips it.
        with suppress(ImageError):
            data = read_image_bytes(dataset.path(name))
            image = hashlib.sha256(data).hexdigest()
            orientation = used_orientation(data, self.config)
            if mask is None and dataset.alpha_masks and has_alpha(data):
                mask = ALPHA
        file = None
        if isinstance(extractor, features.ReadsFiles):
            file = [hash_if_readable(extractor.file(dataset.root, name))]
        return PhotoContents(image=image, mask=mask, orientation=orientation, file=file)

    def photos(self) -> KnownPhotos:
        """The photos, for stages that look at them again."""
        self.fingerprints()
        root, limit = self.context.dataset.root, self.config.max_megapixels
        return KnownPhotos(root, self._hashes, limit)

    def row_fingerprints(self) -> Mapping[str, str]:
        """Image name -> fingerprint of its rows in global/; empty without global descriptors."""
        self.fingerprints()
        return self._row_fingerprints or {}

    def _identities(self) -> Identities:
        describer = self.describer
        return Identities(
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

        Those with features once the stage has run; before that, all that can be expected to have
        some.
        """
        return self.available() if self.settled else list(self.known_fingerprints())

    def to_map(self) -> list[str]:
        """`names` without the queries: the images to map."""
        queries = self.context.dataset.query_names
        return [name for name in self.names() if name not in queries]

    def complete(self) -> bool:
        """Whether any image has features: one that cannot be read does not stop the others."""
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
