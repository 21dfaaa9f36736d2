"""The pipeline files that are part of the package, by name: ``sfm`` for ``pipelines/sfm.yaml``."""

from __future__ import annotations

from pathlib import Path

from reconstruct.errors import ConfigError, suggestion

FOLDER = Path(__file__).parent / "data" / "pipelines"
"""In a source tree a link to the top level's ``pipelines/``, in a wheel a folder of its own."""


def pipeline_names() -> list[str]:
    """The names that `find_pipeline` knows, sorted."""
    return sorted(path.stem for path in FOLDER.glob("*.yaml"))


def find_pipeline(pipeline: Path | str) -> Path:
    """The pipeline file at a path or, where there is none, of that name in the package.

    Raises ConfigError naming the pipelines of the package if there is neither.
    """
    path = Path(pipeline)
    if path.is_file():
        return path
    if str(pipeline) in pipeline_names():
        return FOLDER / f"{pipeline}.yaml"
    valid = suggestion(path.stem, pipeline_names())
    raise ConfigError(f"{pipeline}: no such pipeline file, nor a pipeline of the package{valid}")
