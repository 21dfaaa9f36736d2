"""Section ``extract``, and the networks that it asks for."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Annotated, Any, Literal, Union

from pydantic import Field

from reconstruct import features
from reconstruct.config import NotIdentity, Section
from reconstruct.images import MAX_MEGAPIXELS
from reconstruct.retrieval.describers import Describer, GlobalConfig, create_describer
from reconstruct.stages.compact import CompactConfig

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
    """exif: the network sees a photo upright, turned as its EXIF data say; keypoints are still in
    pixels of the stored picture. stored: it sees the stored picture. search: as exif, and photos
    that match none of the others after `verify` are tried in the three other orientations."""
    max_megapixels: Annotated[float, NotIdentity] = Field(MAX_MEGAPIXELS, gt=0)
    """Larger photos are skipped."""
    loaders: Annotated[int, NotIdentity] = Field(2, ge=1)
    """Threads that decode and resize."""
    batch_size: Annotated[int, NotIdentity] = Field(1, ge=1)
    """Images of equal size that go through the network together (pays on a GPU)."""


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
