"""Sections of a training file, that is of a pipeline file with section ``train``."""

from __future__ import annotations

import math
from typing import Annotated, Literal

from pydantic import Field, field_validator

from reconstruct.config import NotIdentity, Section
from reconstruct.errors import suggestion
from reconstruct.features.weights import SUFFIXES, valid_names
from reconstruct.stages.pipeline_file import PipelineFile
from reconstruct.training.data.groups import Shape
from reconstruct.training.data.layout import LAYOUTS, LayoutName
from reconstruct.training.data.mix import DataConfig


class ValidationConfig(Section):
    """Section ``validation``: groups drawn once, with a fixed seed; the best checkpoint is the one
    with the smallest loss over them."""

    dataset: DataConfig | None = None
    """Photos that are not trained on. null: the training photos, drawn with another seed; the loss
    then shows how well these are fitted, and nothing about others."""
    groups: int = Field(32, ge=1)
    """Number of validation groups."""
    every: int = Field(100, ge=1)
    """Steps between two validations; each also writes a checkpoint."""


class UpdatesConfig(Section):
    """How weights are updated, whatever learns."""

    epochs: int = Field(1, ge=1)
    """Number of epochs."""
    learning_rate: float = Field(1e-3, gt=0)
    """Learning rate of Adam."""
    schedule: Literal["constant", "step", "cosine"] = "cosine"
    """`step`: divided by 5 after 70 % of the steps. `cosine`: down to a hundredth."""
    warmup: int = Field(20, ge=0)
    """Steps over which the learning rate rises to its initial value."""
    max_gradient_norm: float | None = Field(1.0, gt=0)
    """Longer gradients are scaled to this norm; null: none is, as the authors of D2-Net train."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """Precision of the network. bfloat16 is twice as fast on CUDA and on CPUs with AVX512-BF16."""
    tensorboard: Annotated[bool, NotIdentity] = False
    """Also write the curves for TensorBoard (needs the package tensorboard)."""

    @property
    def steps_an_epoch(self) -> int:
        """Updates in an epoch."""
        raise NotImplementedError

    @property
    def steps(self) -> int:
        """Updates in all."""
        return self.steps_an_epoch * self.epochs

    def rate(self, step: int) -> float:
        """The learning rate of a step."""
        done = step / max(1, self.steps)
        factor = 1.0
        if self.schedule == "step" and done >= 0.7:
            factor = 0.2
        elif self.schedule == "cosine":
            factor = 0.01 + 0.99 * 0.5 * (1.0 + math.cos(math.pi * done))
        return self.learning_rate * factor * min(1.0, (step + 1) / (self.warmup + 1))


class TrainConfig(UpdatesConfig):
    """Section ``train``. A step takes one group of crops: all its pairs, one update."""

    weights: str = "vgg16"
    """Initial weights: a name or the path of a file, see `reconstruct.features.weights`."""
    layout: LayoutName = "release"
    """`release`: stride 8, as the authors train. `test_time`: stride 4 and dilated, descriptors
    after the last ReLU, as features are extracted; see `reconstruct.training.data.layout`."""
    crop_px: int = Field(256, ge=64)
    """Edge of the crops."""
    min_correspondences: int = Field(128, ge=1)
    """Pairs with fewer correspondences are dropped."""
    groups: int = Field(1700, ge=1)
    """Groups (steps) per epoch."""
    keep_maps: bool = True
    """Compute the output of the frozen trunk once and keep it on disk (maps/): the same groups
    every epoch, and only conv4_3 to run. false: new groups every epoch, the better choice on a GPU.
    """
    safe_radius: int = Field(4, ge=0)
    """Cells within this distance (Chebyshev) of the true one are not used as negatives."""
    margin: float = Field(1.0, gt=0)
    """By how much the hardest negative has to be farther than the true cell."""
    workers: Annotated[int, NotIdentity] = Field(0, ge=0)
    """Processes that draw groups if maps are not kept; 0 draws in the main process."""

    @field_validator("weights")
    @classmethod
    def _known_weights(cls, value: str) -> str:
        if value not in valid_names() and not value.endswith(SUFFIXES):
            raise ValueError(f"unknown weights {value!r}{suggestion(value, valid_names())}")
        return value

    def shape(self) -> Shape:
        """What all groups of the run have in common."""
        return Shape(
            layout=LAYOUTS[self.layout],
            crop_px=self.crop_px,
            min_correspondences=self.min_correspondences,
        )

    @property
    def steps_an_epoch(self) -> int:
        """One for each group."""
        return self.groups


class TrainingConfig(PipelineFile):
    """A training file."""

    dataset: DataConfig
    validation: ValidationConfig = ValidationConfig()
    train: TrainConfig
