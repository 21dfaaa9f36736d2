"""A run's result in the formats of other programs -> OUT/export/.

A format is a file here with a function ``write(result, target)``, and a line in `FORMATS`.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

from reconstruct.errors import UnknownNameError, UsageError

FORMATS: Mapping[str, str] = MappingProxyType(
    {
        "colmap": "colmap",
        "geojson": "cameras.geojson",
        "gsplat": "gsplat",
        "hloc": "hloc",
        "kapture": "kapture",
        "nerfstudio": "nerfstudio",
        "ply": "points.ply",
        "text": "text",
    }
)
"""Name of a format (and of its module here) -> the file or folder that it leaves in OUT/export/."""


def export(output: Path, format_: str, images: Path | None = None) -> Path:
    """Write the result of a run in another format, in place of an earlier export.

    Args:
        output: the run's output folder.
        format_: one of `FORMATS`:
            colmap: undistorted photos and stereo lists, for COLMAP's patch_match_stereo, OpenMVS.
            geojson: where the cameras are on earth, of a model aligned with GPS.
            gsplat: undistorted photos and sparse/0, which Gaussian splatting trainers load.
            hloc: features.h5 and matches.h5.
            kapture: photos, poses, keypoints and points in kapture's files.
            nerfstudio: photos, transforms.json and points.
            ply: the points. text: COLMAP's text model.
        images: folder of the photos; None: where the run found them.

    Returns:
        The file or folder.

    Raises:
        UsageError: there is no such result here, the photos are gone, or the earlier export holds
            what another program put there.
        UnknownNameError: for another format.
    """
    if format_ not in FORMATS:
        raise UnknownNameError("export format", format_, FORMATS)
    from reconstruct.atomic import atomic_path
    from reconstruct.export.result import Result
    from reconstruct.ownership import mark

    module = importlib.import_module(f"reconstruct.export.{format_}")
    target = output / "export" / FORMATS[format_]
    result = Result(output, images)
    mark(target.parent, [], known=True)
    with atomic_path(target) as temporary:
        module.write(result, temporary)
        _check_nothing_lost(target, temporary)
    return target


def _check_nothing_lost(earlier: Path, new: Path) -> None:
    """Raises UsageError if an earlier export holds files that the new one lacks, such as depth maps
    that were computed there."""
    lost = sorted(_names(earlier) - _names(new))
    if lost:
        more = f" and {len(lost) - 3} more" if len(lost) > 3 else ""
        raise UsageError(
            f"{earlier}: holds what a new export would not ({', '.join(lost[:3])}{more}); move or "
            "delete the folder, then export again"
        )


def _names(folder: Path) -> set[str]:
    return {p.relative_to(folder).as_posix() for p in folder.rglob("*") if not p.is_dir()}
