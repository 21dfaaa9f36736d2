"""Names of images in text lists, where a line may also be indented or a comment.

A name that begins with a space or a ``#`` is written with ``./`` before it: the same file, and not
taken for a comment. ``./`` is dropped when it is read.
"""

from __future__ import annotations

_HERE = "./"


def listed_name(name: str) -> str:
    """A name as it stands in a list."""
    return _HERE + name if name[:1].isspace() or name.startswith("#") else name


def name_in_list(text: str) -> str:
    """The name that `listed_name` wrote, or that a person wrote with spaces around it."""
    return text.strip().removeprefix(_HERE)
