"""The exceptions of the package, and the exit status of the program for each.

    ReconstructError
    ├── UsageError          2  the caller must change something
    │   ├── ConfigError        a pipeline file or an override is wrong
    │   ├── UnknownNameError   a registry does not hold that name; lists the valid ones
    │   ├── MissingLibraryError an optional library is not installed
    │   └── WorkspaceBusyError another run holds the output folder
    └── DataError           1  the data is unreadable, or yields no result
        ├── ImageError         one image cannot be read
        ├── WeightsError       network weights are missing, corrupt, or of another layout
        ├── ArtifactError      a file of an output folder cannot be read
        └── EstimationError    no model, no pose, no pair with enough matches

Every message says what was expected, what came, and the next step.
"""

from __future__ import annotations

import difflib
import warnings
from collections.abc import Iterable
from typing import Any


class ReconstructError(Exception):
    """Base class of all errors that this package raises on purpose."""

    exit_status = 1


class UsageError(ReconstructError):
    """The caller must change a setting, a path, or the command line."""

    exit_status = 2


class ConfigError(UsageError):
    """A pipeline file or an override is wrong; the message names the path in the file."""


class UnknownNameError(UsageError):
    """A name that is not registered; the message lists the valid ones."""

    def __init__(self, kind: str, name: str, valid: Iterable[str]) -> None:
        self.kind, self.name, self.valid = kind, name, sorted(valid)
        super().__init__(f"unknown {kind} {name!r}{suggestion(name, self.valid)}")

    def __reduce__(self) -> tuple[type, tuple[str, str, list[str]]]:
        return type(self), (self.kind, self.name, self.valid)


class MissingLibraryError(UsageError):
    """An optional library is not installed; the message says how it is."""


class WorkspaceBusyError(UsageError):
    """Another run writes to the same output folder."""


class DataError(ReconstructError):
    """The data is missing, unreadable, or does not yield a result."""


class ImageError(DataError):
    """One image cannot be read."""


class WeightsError(DataError):
    """Network weights are missing, corrupt, or of another layout."""


class ArtifactError(DataError):
    """A file of an output folder cannot be read."""


class EstimationError(DataError):
    """The data was read but yields no result: no model, no pose, no pair with enough matches."""


def suggestion(name: str, valid: Iterable[str]) -> str:
    """The end of a message about an unknown name: `` (did you mean 'x'?); valid: x, y``.

    Args:
        name: The unknown name.
        valid: All names that would have been accepted.
    """
    names = sorted(valid)
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.6)
    hint = f" (did you mean {close[0]!r}?)" if close else ""
    return f"{hint}; valid: {', '.join(names)}"


def __getattr__(name: str) -> Any:
    if name == "ReconstructionError":
        warnings.warn(
            "reconstruct.errors.ReconstructionError is now EstimationError; "
            "the old name goes with the next release",
            DeprecationWarning,
            stacklevel=2,
        )
        return EstimationError
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
