"""Adding photos to a finished run, from Python."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from pathlib import Path

from reconstruct.atomic import atomic_path
from reconstruct.config import read_yaml, validate
from reconstruct.datasets.folder import list_images
from reconstruct.datasets.photos import FolderConfig
from reconstruct.errors import UsageError
from reconstruct.fingerprints import file_hash
from reconstruct.pipeline.config import PipelineConfig
from reconstruct.pipeline.run import run_config
from reconstruct.stages.growing import PREVIOUS
from reconstruct.stages.outcome import Run
from reconstruct.workspace import Workspace


def extend(
    run: Run | Path | str,
    photos: Path | str | Iterable[Path | str],
    *,
    fixed: bool = False,
    device: str = "auto",
    verbosity: int = 0,
) -> Run:
    """Add photos to a finished run: its model grows instead of being mapped again.

    The photos are matched with the others as the run's settings say, registered in the model that
    is there, triangulated and adjusted with it. The settings stay those of the run, with
    ``map.start: previous``.

    Args:
        run: The run, or its output folder.
        photos: A folder of new photos, or photos one by one. Those that are not in the run's folder
            of photos yet are copied into it, under their names (a folder's with its subfolders).
        fixed: Poses and intrinsics of the photos that have one stay as they are, to the bit.
        device: As in `reconstruct.run`.
        verbosity: As in `reconstruct.run`.

    Returns:
        The run with the photos. ``summary.figures["map"]`` tells how many images it had
        (``grown_from_images``) and how many came (``new_images``).

    Raises:
        UsageError: The folder holds no run that maps a folder of photos, or another photo has the
            name of a new one.
        DataError: As `reconstruct.run`.

    Examples:
        >>> first = reconstruct.run("sfm", images=photos, output=output)
        >>> second = reconstruct.extend(first, [new_photo], fixed=True)
        >>> second.summary.figures["map"]["new_images"]
        1
    """
    workspace = Workspace(run.output if isinstance(run, Run) else run)
    config = _read_config(workspace)
    if not isinstance(config.dataset, FolderConfig) or config.map is None:
        raise UsageError(f"{workspace.config}: not a run that maps a folder of photos")
    _copy(_named(photos), Path(config.dataset.images))
    mapping = {"start": PREVIOUS, "fixed": fixed}
    grown = config.model_copy(update={"map": config.map.model_copy(update=mapping)})
    return run_config(grown, workspace.root, device, verbosity=verbosity)


def _read_config(workspace: Workspace) -> PipelineConfig:
    """The settings of a run of structure from motion. Raises UsageError if there is none."""
    if not workspace.config.is_file():
        raise UsageError(f"{workspace.root}: no run here (expected run.yaml); run a pipeline first")
    content = read_yaml(workspace.config).get("config")
    if not isinstance(content, dict) or not isinstance(content.get("map"), dict):
        raise UsageError(f"{workspace.config}: not a run that maps photos; use one of pipeline sfm")
    config = validate(PipelineConfig, content, str(workspace.config))
    if config.map is None or config.map.method not in ("incremental", "auto"):
        raise UsageError(
            f"{workspace.config}: only `map.method: incremental` takes a model to start from"
        )
    return config


def _named(photos: Path | str | Iterable[Path | str]) -> dict[str, Path]:
    """Name under the root -> file. Raises UsageError for what is not there."""
    if isinstance(photos, Path | str) and Path(photos).is_dir():
        names, _ = list_images(Path(photos))
        return {name: Path(photos) / name for name in names}
    files = [Path(photos)] if isinstance(photos, Path | str) else [Path(file) for file in photos]
    for file in files:
        if not file.is_file():
            raise UsageError(f"{file}: no such photo")
    return {file.name: file for file in files}


def _copy(files: dict[str, Path], root: Path) -> None:
    """Copy photos to a folder. Raises UsageError, before any is, if a name is taken."""
    new = {}
    for name, file in files.items():
        target = root / name
        if root.resolve() in file.resolve().parents:
            continue
        if not target.exists():
            new[target] = file
        elif file_hash(target) != file_hash(file):
            raise UsageError(f"{target}: another photo has the name of {file}; rename one of them")
    for target, file in new.items():
        with atomic_path(target) as temporary:
            shutil.copy2(file, temporary)
