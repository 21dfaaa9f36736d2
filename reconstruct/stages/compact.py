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
from reconstruct.features import Extractor
from reconstruct.features.compaction import Encoding, compact, fit_basis, read_basis, write_basis
from reconstruct.features.together import Together
from reconstruct.fingerprints import file_hash, fingerprint
from reconstruct.stages import Context


class CompactConfig(Section):
    """How descriptors are stored; matching uses what is stored."""

    dim: int | None = Field(None, ge=1)
    """Dimensions to which a PCA of the run's own descriptors reduces them, each kind of `together`
    by one of its own; kinds that have no more keep theirs. null: all."""
    encoding: Encoding = "float16"
    """How a number is stored: float32, float16 (no measurable loss), uint8."""
    basis: str | None = None
    """A basis stored by another run (its features/basis.safetensors); null: one of the run's
    own."""
    sample_images: int = Field(24, ge=1)
    """Images, evenly spread over the sorted names, from which the basis is learned."""

    def basis_path(self, features: Path) -> Path | None:
        """The file of the basis of a run whose features are in ``features``; None without one."""
        if self.dim is None:
            return None
        return features / "basis.safetensors" if self.basis is None else Path(self.basis)


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
    extractor: Extractor

    @property
    def path(self) -> Path | None:
        """The file of the basis; None if all dimensions are kept."""
        return self.config.basis_path(self.context.workspace.features)

    def ready(self) -> bool:
        """Whether nothing has to be learned."""
        if self.path is None or self.config.basis is not None:
            return True
        return self.context.workspace.stamp(self.path) == self._wanted()

    def identity(self) -> list[Any]:
        """JSON-able: settings and the content of the basis."""
        basis = file_hash(self.path) if self.path is not None and self.ready() else None
        return [self.config.dim, self.config.encoding, basis]

    def learn(self, names: list[str], describe: Callable[[str], NDArray[Any] | None]) -> None:
        """Fit and store the basis from some of ``names``; ``describe`` gives an image's (N, D)
        descriptors, None if it cannot be read. Raises DataError if there are no descriptors."""
        assert self.path is not None
        assert self.config.dim is not None
        step = max(1, len(names) // self.config.sample_images)
        sample = names[::step][: self.config.sample_images]
        own = self.extractor
        columns = [part.dim for part in (own.parts if isinstance(own, Together) else [own])]
        with self.context.reporter.task("basis", len(sample), "images") as advance:
            try:
                described = _described(sample, describe, advance)
                basis = fit_basis(described, self.config.dim, columns)
            except ValueError as error:
                raise DataError(f"extract.compact.dim: {error}") from error
        with atomic_path(self.path) as temporary:
            write_basis(temporary, basis)
        self.context.workspace.set_stamp(self.path, self._wanted())

    def compactor(self) -> Compactor:
        """What makes stored descriptors, once the basis is there."""
        basis = None if self.path is None else read_basis(self.path)
        return Compactor(basis, self.config.encoding)

    def _wanted(self) -> str:
        settings = [self.config.dim, self.config.sample_images]
        return fingerprint("basis", self.extractor.identity(), *settings)


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
