"""Part ``compact`` of section ``extract``: descriptors in fewer dimensions and fewer bytes."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from reconstruct.atomic import atomic_path
from reconstruct.config import Section
from reconstruct.errors import DataError
from reconstruct.features.compaction import Encoding, compact, fit_basis, read_basis, write_basis
from reconstruct.fingerprints import file_hash, fingerprint
from reconstruct.stages import Context


class CompactConfig(Section):
    """How descriptors are stored; matching uses what is stored."""

    dim: int | None = Field(None, ge=1)
    """Dimensions to which a PCA of the run's own descriptors reduces them; null: all."""
    encoding: Encoding = "float16"
    """How a number is stored: float32, float16 (no measurable loss), uint8."""
    basis: str | None = None
    """A basis stored by another run (its features/basis.safetensors); null: one of the run's
    own."""
    sample_images: int = Field(24, ge=1)
    """Images, evenly spread over the sorted names, from which the basis is learned."""


@dataclass(frozen=True, slots=True, eq=False)
class Compactor:
    """From (N, D) float32 descriptors to what is stored.

    Args:
        basis: (D, dim) of a PCA; None: all dimensions are kept.
        encoding: How a number is stored.
    """

    basis: NDArray[np.float32] | None
    encoding: Encoding

    def __call__(self, descriptors: NDArray[Any]) -> NDArray[Any]:
        """The stored form of descriptors."""
        return compact(descriptors, self.basis, self.encoding)


@dataclass(slots=True)
class Compaction:
    """Applies a `CompactConfig`; learns the basis once and keeps it when images are added."""

    context: Context
    config: CompactConfig
    extractor_identity: dict[str, Any]

    @property
    def path(self) -> Path:
        """The file of the basis."""
        if self.config.basis is not None:
            return Path(self.config.basis)
        return self.context.workspace.features / "basis.safetensors"

    def ready(self) -> bool:
        """Whether nothing has to be learned."""
        if self.config.dim is None or self.config.basis is not None:
            return True
        return self.context.workspace.stamp(self.path) == self._wanted()

    def identity(self) -> list[Any]:
        """JSON-able: settings and the content of the basis."""
        basis = file_hash(self.path) if self.config.dim is not None and self.ready() else None
        return [self.config.dim, self.config.encoding, basis]

    def learn(self, names: list[str], describe: Callable[[str], NDArray[Any] | None]) -> None:
        """Fit and store the basis from some of ``names``; ``describe`` gives an image's (N, D)
        descriptors, None if it cannot be read. Raises DataError if there are no descriptors."""
        assert self.config.dim is not None
        step = max(1, len(names) // self.config.sample_images)
        sample = names[::step][: self.config.sample_images]
        with self.context.reporter.task("basis", len(sample), "images") as advance:
            try:
                basis = fit_basis(_described(sample, describe, advance), self.config.dim)
            except ValueError as error:
                raise DataError(f"extract.compact.dim: {error}") from error
        with atomic_path(self.path) as temporary:
            write_basis(temporary, basis)
        self.context.workspace.set_stamp(self.path, self._wanted())

    def compactor(self) -> Compactor:
        """What makes stored descriptors, once the basis has been learned."""
        basis = read_basis(self.path) if self.config.dim is not None else None
        return Compactor(basis, self.config.encoding)

    def _wanted(self) -> str:
        settings = [self.config.dim, self.config.sample_images]
        return fingerprint("basis", self.extractor_identity, *settings)


def _described(
    names: Iterable[str],
    describe: Callable[[str], NDArray[Any] | None],
    advance: Callable[[], None],
) -> Iterable[NDArray[Any]]:
    for name in names:
        found = describe(name)
        advance()
        if found is not None and len(found):
            yield np.asarray(found, np.float32)
