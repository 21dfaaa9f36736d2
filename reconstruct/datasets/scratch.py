"""The folder ``dataset/`` in an output folder: what was made of the photos, clips or lists."""

from __future__ import annotations

from pathlib import Path

from reconstruct.ownership import mark


def claim(scratch: Path, *names: str, known: bool) -> None:
    """Mark the folder as this program's, before something in it is replaced.

    Args:
        scratch: The folder.
        names: What is made in it.
        known: Whether what is there tells that this program made it: older releases did not mark
            the folder.

    Raises:
        UsageError: Something of these names is there, and is somebody else's.
    """
    rendered = (scratch / "fingerprint").is_file()  # a demo, in the same output folder
    mark(scratch, [scratch / name for name in names], known=known or rendered)
