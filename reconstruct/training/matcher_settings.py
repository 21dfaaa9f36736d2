"""Sections of a file that trains a matcher, that is of a pipeline file with section
``train_matcher``."""

from __future__ import annotations

from pydantic import Field, field_validator, model_validator

from reconstruct.config import Section
from reconstruct.stages.extract_settings import LocalConfig
from reconstruct.stages.pipeline_file import PipelineFile
from reconstruct.training.data.groups import Shape
from reconstruct.training.data.layout import LAYOUTS
from reconstruct.training.data.mix import DataConfig
from reconstruct.training.settings import UpdatesConfig, ValidationConfig


class TrainMatcherConfig(UpdatesConfig):
    """Section ``train_matcher``: a LightGlue for one kind of features."""

    local: LocalConfig
    """The extractor of the features, as in `extract.local`; it does not learn."""
    crop_px: int = Field(320, ge=64)
    """Edge of the crops."""
    min_correspondences: int = Field(300, ge=1)
    """Pairs with fewer corresponding cells, which are 4 px wide, are dropped."""
    groups: int = Field(2000, ge=1)
    """Groups of crops that are drawn, once; their features are kept on disk (crops/)."""
    epochs: int = Field(10, ge=1)
    """Number of epochs."""
    pairs: int = Field(8, ge=1)
    """Pairs of crops in a step, each of another group."""
    max_keypoints: int = Field(320, ge=8)
    """Most keypoints of a crop in a step, drawn at random; the crop with the fewest decides for all
    of the step."""
    near_px: float = Field(5.0, gt=0)
    """Keypoints match if each is the other's nearest, and so near to where it should be."""
    far_px: float = Field(8.0, gt=0)
    """Keypoints without match count as such if no other is so near."""
    width: int = Field(128, ge=8)
    """Length of a keypoint's state."""
    heads: int = Field(4, ge=1)
    """Of attention, which divide the width into even numbers."""
    layers: int = Field(4, ge=1)
    """Layers, each of attention in each image and between the two."""
    weight_decay: float = Field(0.01, ge=0)
    """Of AdamW, on matrices."""
    warmup: int = Field(100, ge=0)
    """Steps over which the learning rate rises to its initial value."""

    @field_validator("local")
    @classmethod
    def _one_kind_that_describes_crops(cls, value: Section) -> Section:
        name = str(value.identity()["name"])
        if name == "precomputed":
            raise ValueError("crops are described as they are drawn; name an extractor")
        if name == "together":
            raise ValueError("a matcher belongs to one kind of features; name one of the parts")
        return value

    @model_validator(mode="after")
    def _check(self) -> TrainMatcherConfig:
        if self.width % (2 * self.heads):
            raise ValueError(f"width: expected a multiple of 2 x heads ({2 * self.heads})")
        if self.far_px < self.near_px:
            raise ValueError("far_px: expected at least near_px")
        if self.groups < self.pairs:
            raise ValueError("groups: expected at least as many as `pairs`, one for each")
        return self

    def shape(self) -> Shape:
        """What all groups of the run have in common."""
        return Shape(
            layout=LAYOUTS["test_time"],
            crop_px=self.crop_px,
            min_correspondences=self.min_correspondences,
        )

    @property
    def steps_an_epoch(self) -> int:
        """As many as there are pairs of all groups once."""
        return self.groups // self.pairs


class MatcherTrainingConfig(PipelineFile):
    """A file that trains a matcher."""

    dataset: DataConfig
    validation: ValidationConfig = ValidationConfig()
    train_matcher: TrainMatcherConfig
