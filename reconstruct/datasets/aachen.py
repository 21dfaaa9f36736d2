"""Aachen Day-Night (Sattler et al., BMVC 2012 and CVPR 2018) in its public layout.

    ROOT/images_upright/db/...  ROOT/images_upright/query/{day,night}/...
    ROOT/queries/*_time_queries_with_intrinsics.txt         name model width height params...
    ROOT/3D-models/*.nvm  and  database_intrinsics.txt      v1.0
    ROOT/3D-models/.../{cameras,images,points3D}.bin        v1.1: a COLMAP model

Names are relative to images_upright. The reference is always provided as a COLMAP model with its
poses and intrinsics.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np

from reconstruct import colmap
from reconstruct.atomic import atomic_path
from reconstruct.datasets import Dataset
from reconstruct.datasets.cameras import CamerasConfig
from reconstruct.datasets.nvm import NvmCamera, NvmModel, read_nvm
from reconstruct.datasets.queries import MISSING, check_size, query_group, read_list
from reconstruct.datasets.scratch import claim
from reconstruct.errors import DataError, ImageError, UsageError
from reconstruct.fingerprints import file_hash, fingerprint
from reconstruct.images import image_size
from reconstruct.types import Intrinsics, Query


class AachenConfig(CamerasConfig):
    """The folder of the data set; parts that are null are looked up in the public layout.

    Paths are relative to ``root``.
    """

    format: Literal["aachen"]
    root: str
    """The data set's folder."""
    images: str | None = None
    """Folder that image names are relative to; null: images_upright."""
    reference: str | None = None
    """.nvm file or COLMAP model; null: the one below 3D-models."""
    intrinsics: str | None = None
    """Intrinsics of the photos of an .nvm file; null: database_intrinsics.txt."""
    queries: str = "*_time_queries_with_intrinsics.txt"
    """Pattern of the lists below queries/ whose photos are localized."""

    def load(self, scratch: Path) -> Dataset:
        """See `load_aachen`."""
        return load_aachen(self, scratch)


def load_aachen(config: AachenConfig, scratch: Path) -> Dataset:
    """The data set.

    Photos that the reference or a list names but that do not exist are skipped by name.

    Args:
        config: Settings.
        scratch: Folder to which an .nvm reference is written as a COLMAP model.

    Raises:
        UsageError: A part of the layout is missing, a photo has another size than its intrinsics
            are for, or a query is listed twice with different intrinsics.
    """
    root = Path(config.root)
    images = root / (config.images or "images_upright")
    for folder in (root, images):
        if not folder.is_dir():
            raise UsageError(f"{folder}: no such folder; expected Aachen Day-Night's layout")
    poses = _reference_model(config, root, images, scratch / "reference")
    cameras = colmap.model_cameras(colmap.read_model(poses))
    queries = _queries(root / "queries", config.queries)
    skipped: dict[str, str] = {}
    present: list[str] = []
    listed = {name: colmap.intrinsics(camera) for name, camera in cameras.items()}
    for name, intrinsics in sorted((listed | {q.name: q.intrinsics for q in queries}).items()):
        if (images / name).is_file():
            check_size(images / name, intrinsics)
            present.append(name)
        else:
            skipped[name] = MISSING
    kept = tuple(query for query in queries if query.name not in skipped)
    if not kept or len(kept) == len(present):
        raise DataError(f"{images}: no photo of the {'queries' if not kept else 'reference'}")
    return Dataset(
        root=images,
        names=tuple(present),
        skipped=skipped,
        cameras=poses,
        poses=poses,
        queries=kept,
    )


def _queries(folder: Path, pattern: str) -> tuple[Query, ...]:
    lists = sorted(folder.glob(pattern))
    if not lists:
        raise UsageError(f"{folder}/{pattern}: no such list of queries (dataset.queries)")
    by_name: dict[str, Query] = {}
    for path in lists:
        for name, intrinsics in read_list(path).items():
            if name in by_name and by_name[name].intrinsics != intrinsics:
                raise UsageError(f"{path}: {name} has other intrinsics in another list")
            query = Query(name=name, intrinsics=intrinsics, group=query_group(path))
            by_name.setdefault(name, query)
    return tuple(by_name[name] for name in sorted(by_name))


def _reference_model(config: AachenConfig, root: Path, images: Path, scratch: Path) -> Path:
    path = root / config.reference if config.reference else _find_reference(root / "3D-models")
    if path.suffix != ".nvm":
        return path
    given = config.intrinsics
    listed = root / given if given else _only(root, "database_intrinsics.txt")
    value = fingerprint("nvm", file_hash(path), listed and file_hash(listed))
    stamp = scratch / "fingerprint"
    if not stamp.is_file() or stamp.read_text() != value:
        known = read_list(listed) if listed else {}
        model = nvm_model(read_nvm(path), images, known)
        claim(scratch.parent, scratch.name, known=stamp.is_file())
        with atomic_path(scratch) as temporary:
            temporary.parent.mkdir(parents=True, exist_ok=True)
            colmap.write_model(model, temporary)
            (temporary / "fingerprint").write_text(value)
    return scratch


def _find_reference(folder: Path) -> Path:
    models = sorted(folder.rglob("*.nvm"))
    models += sorted({p.parent for p in folder.rglob("images.*") if p.suffix in (".bin", ".txt")})
    if len(models) != 1:
        raise UsageError(
            f"{folder}: expected one reference model (.nvm or COLMAP), found "
            f"{[str(p) for p in models] or 'none'}; name it in dataset.reference"
        )
    return models[0]


def _only(root: Path, name: str) -> Path | None:
    return next(iter(sorted([*root.glob(name), *root.glob(f"*/{name}")])), None)


def nvm_model(
    nvm: NvmModel, images: Path, known: dict[str, Intrinsics | None]
) -> colmap.Reconstruction:
    """The NVM model as a COLMAP model with its points, which tell which photos see the same
    surfaces.

    Args:
        nvm: The model.
        images: Folder of the photos.
        known: Name -> intrinsics. A photo without them gets its focal length and radial distortion
            from the NVM model, and the size of its file; photos with neither are left out.
    """
    order = np.argsort(nvm.observations[:, 1], kind="stable")
    bounds = np.searchsorted(nvm.observations[order, 1], np.arange(len(nvm.cameras) + 1))
    built = []
    for number, camera in enumerate(nvm.cameras):
        intrinsics = known.get(camera.name) or _own_intrinsics(images / camera.name, camera)
        if intrinsics is not None:
            observed = order[bounds[number] : bounds[number + 1]]
            points = nvm.observations[observed, 0]
            built.append(
                (camera.name, intrinsics, camera.cam_from_world, nvm.positions[observed], points)
            )
    return colmap.build_model(built, nvm.xyz)


def _own_intrinsics(path: Path, camera: NvmCamera) -> Intrinsics | None:
    try:
        width, height = image_size(path)
    except ImageError:
        return None
    params = (camera.focal_px, width / 2, height / 2, -camera.radial)
    return Intrinsics(model="SIMPLE_RADIAL", size=(width, height), params=params)
