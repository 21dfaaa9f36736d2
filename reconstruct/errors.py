"""The exceptions of the package, and the exit status that each stands for.

    ReconstructError
    ├── UsageError          2  the caller must change something
    │   ├── ConfigError        a pipeline file or an override is wrong
    │   ├── UnknownNameError   a registry does not hold that name; lists the valid ones
    │   └── WorkspaceBusyError another run holds the output folder
    └── DataError           1  the data did not allow it
        ├── ImageError         one image cannot be read
        ├── WeightsError       network weights are missing, corrupt, or of another layout
        ├── ArtifactError      a file of an output folder cannot be read
        └── ReconstructionError no model, no pose, no pair with enough matches

Every message says what was expected, what came, and the next step.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class ReconstructError(Exception):
    """Base of all errors that this package raises on purpose."""

    exit_status = 1


class UsageError(ReconstructError):
    """The caller must change a setting, a path, or the command line."""

    exit_status = 2


class ConfigError(UsageError):
    """A pipeline file or an override is wrong; the message names the path in the file."""


class UnknownNameError(UsageError):
    """A name that a registry does not hold."""

    def __init__(self, kind: str, name: str, valid: Iterable[str]) -> None:
        self.kind, self.name, self.valid = kind, name, sorted(valid)
        super().__init__(f"unknown {kind} {name!r}{suggestion(name, self.valid)}")

    def __reduce__(self) -> tuple[type, tuple[str, str, list[str]]]:
        return type(self), (self.kind, self.name, self.valid)


class WorkspaceBusyError(UsageError):
    """Another run writes to the same output folder."""


class DataError(ReconstructError):
    """The data did not allow it."""


class ImageError(DataError):
    """One image cannot be read."""


class WeightsError(DataError):
    """Network weights are missing, corrupt, or of another layout."""


class ArtifactError(DataError):
    """A file of an output folder cannot be read."""


class ReconstructionError(DataError):
    """No model, no pose, or no pair with enough matches."""


def suggestion(name: str, valid: Iterable[str]) -> str:
    """`` (did you mean 'x'?); valid: 'x', 'y'``: the tail of a message about an unknown name."""
    names = sorted(valid)
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.6)
    hint = f" (did you mean {close[0]!r}?)" if close else ""
    return f"{hint}; valid: {', '.join(names)}"
