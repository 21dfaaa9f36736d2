"""Several extractors side by side: the keypoints of all of them, each matched within its kind.

They complement each other: SIFT has many exact keypoints where photos are alike, D2-Net has matches
where nothing else does. Descriptors are in blocks of columns, one block for each extractor and
zeros elsewhere, so that the dot product of two kinds is 0.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal, Union

import numpy as np
from pydantic import BeforeValidator, Field, model_validator

from reconstruct import features
from reconstruct.config import NotIdentity, Section, tuple_from_list
from reconstruct.features.d2net import D2Net, D2NetConfig
from reconstruct.features.sift import SiftConfig
from reconstruct.types import ImageArray, LocalFeatures

if TYPE_CHECKING:
    from torch import Tensor

    PartConfig = Section
else:  # the other extractors' settings, told apart by `name`
    _choices = tuple(
        features.config_class(name)
        for name in features.EXTRACTORS
        if name not in ("together", "precomputed", "grid")
    )
    PartConfig = Annotated[Union[_choices], Field(discriminator="name")]  # noqa: UP007


WEIGHTS: Final = "d2_homography"
PARTS: Final = [{"name": "d2net"}, {"name": "sift"}]
"""The parts of a section that names none."""
SHARED: Final = ("max_edge", "max_keypoints", "multiscale", "levels", "tiles", "fp16")


class TogetherConfig(Section):
    """Section ``extract.local`` with ``name: together``."""

    name: Literal["together"] = "together"
    parts: Annotated[tuple[PartConfig, ...], BeforeValidator(tuple_from_list)] = Field(
        (D2NetConfig(weights=WEIGHTS), SiftConfig()), min_length=1
    )
    """The extractors' own sections."""
    weights: Annotated[str, NotIdentity] = WEIGHTS
    """Weights of D2-Net, where its own section gives none."""
    max_edge: Annotated[int | None, NotIdentity] = Field(None, ge=16)
    """`max_edge` of each part that gives none itself; null: the part's default."""
    max_keypoints: Annotated[int | None, NotIdentity] = Field(None, ge=1)
    """`max_keypoints` of each part that gives none itself; null: the part's default."""
    multiscale: Annotated[bool | None, NotIdentity] = None
    """`multiscale` of each part that has it and gives none itself; null: the part's default."""
    levels: Annotated[Literal["summed", "apart"] | None, NotIdentity] = None
    """`levels` of each part that has it and gives none itself; null: the part's default."""
    tiles: Annotated[bool | None, NotIdentity] = None
    """`tiles` of each part that has it and gives none itself; null: the part's default."""
    fp16: Annotated[bool | None, NotIdentity] = None
    """`fp16` of each part that has it and gives none itself; null: the part's default."""

    @model_validator(mode="before")
    @classmethod
    def _hand_down(cls, given: Any) -> Any:
        """Sections of parts with the settings they share. What is malformed is left as it is."""
        parts = given.get("parts", PARTS) if isinstance(given, dict) else None
        if not isinstance(parts, list | tuple):
            return given
        shared = {key: given[key] for key in SHARED if given.get(key) is not None}
        d2net = {"weights": given.get("weights", WEIGHTS)}
        return {**given, "parts": [_with_settings(part, shared, d2net) for part in parts]}


def _with_settings(part: Any, shared: dict[str, Any], d2net: dict[str, Any]) -> Any:
    """A part's section with those of the shared settings that it may have and does not give."""
    if not isinstance(part, dict) or part.get("name") not in features.EXTRACTORS:
        return part
    own = features.config_class(part["name"]).model_fields
    handed = {key: value for key, value in shared.items() if key in own}
    return {**handed, **(d2net if part["name"] == "d2net" else {}), **part}


@dataclass(frozen=True, slots=True, eq=False)
class Prepared:
    """A photo as each of the parts takes it."""

    parts: tuple[Any, ...]

    @property
    def shape(self) -> tuple[int, ...]:
        """The shapes of all parts, one after the other."""
        return tuple(edge for part in self.parts for edge in part.shape)


class Together:
    """See `reconstruct.features.Extractor`."""

    def __init__(self, config: TogetherConfig, *, device: str = "auto") -> None:
        self.config = config
        self.parts = [features.create(part, device) for part in config.parts]
        self.dim = sum(part.dim for part in self.parts)

    @property
    def d2net(self) -> D2Net | None:
        """The first part that is D2-Net, whose maps others may use."""
        return next((part for part in self.parts if isinstance(part, D2Net)), None)

    def identity(self) -> dict[str, Any]:
        """The identities of the parts, in their order."""
        return {"name": self.config.name, "parts": [part.identity() for part in self.parts]}

    def __call__(self, image: ImageArray) -> LocalFeatures:
        """Features of one (H, W, 3) uint8 RGB image."""
        return self.extract([self.prepare(image)])[0]

    def prepare(self, image: ImageArray) -> Prepared:
        """The input of each part."""
        return Prepared(tuple(part.prepare(image) for part in self.parts))

    def extract(
        self, batch: Sequence[Prepared], observe: Callable[[Tensor], None] | None = None
    ) -> list[LocalFeatures]:
        """Features of prepared images of one shape, those of the first part first.

        Args:
            batch: Images prepared by `prepare`.
            observe: Called with the maps of `d2net`, see `D2Net.extract`.
        """
        found = []
        for k, part in enumerate(self.parts):
            inputs = [item.parts[k] for item in batch]
            if observe is not None and part is self.d2net:
                found.append(part.extract(inputs, observe))
            else:
                found.append(part.extract(inputs))
        return [joined(kinds) for kinds in zip(*found, strict=True)]


def joined(parts: Sequence[LocalFeatures]) -> LocalFeatures:
    """One photo's features by several extractors as one set, with their kinds."""
    widths = [part.descriptors.shape[1] for part in parts]
    starts = np.cumsum([0, *widths])
    blocks = [
        np.pad(part.descriptors, ((0, 0), (start, starts[-1] - start - width)))
        for part, start, width in zip(parts, starts, widths, strict=False)
    ]
    kinds = [np.full(len(part), k, np.uint8) for k, part in enumerate(parts)]
    return LocalFeatures(
        keypoints=np.concatenate([part.keypoints for part in parts]),
        scales=np.concatenate([part.scales for part in parts]),
        scores=np.concatenate([part.scores for part in parts]),
        descriptors=np.concatenate(blocks),
        image_size=parts[0].image_size,
        kinds=np.concatenate(kinds),
    )
