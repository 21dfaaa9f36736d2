"""Undistorted photos with their models, for splats and for dense stereo."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from reconstruct import colmap
from reconstruct.colmap import undistortion
from reconstruct.datasets.synthetic import SyntheticDataset
from reconstruct.export import export
from reconstruct.export.geojson import feature_collection
from reconstruct.types import Intrinsics


@pytest.fixture
def distorted(square: SyntheticDataset, tmp_path: Path) -> Path:
    """An output folder whose model is exact but for 0.5 px of noise, of a lens with barrel
    distortion."""
    poses = colmap.model_poses(colmap.read_model(square.reference))
    rng = np.random.default_rng(0)
    points = rng.uniform(-3, 3, (300, 3))
    known = Intrinsics(model="SIMPLE_RADIAL", size=(320, 240), params=(266.0, 160.0, 120.0, -0.1))
    camera = colmap.make_camera(known.model, known.params, known.size)
    images = []
    for name, pose in poses.items():
        pixels = colmap.project(camera, pose, points)
        inside = np.flatnonzero(((pixels > 20) & (pixels < [300, 220])).all(axis=1))
        noisy = pixels[inside] + rng.normal(0, 0.5, (len(inside), 2))
        images.append((name, known, pose, noisy, inside))
    output = tmp_path / "distorted"
    output.mkdir()
    colmap.write_model(colmap.build_model(images, points), output / "sparse")
    return output


def check_model(folder: Path, images: Path) -> colmap.Reconstruction:
    """The model, after a look at its cameras and photos."""
    model = colmap.read_model(folder)
    for name, camera in colmap.model_cameras(model).items():
        assert camera.model.name == "PINHOLE"
        with Image.open(images / name) as image:
            assert image.size == (camera.width, camera.height)
    return model


def angles(model: colmap.Reconstruction) -> np.ndarray:
    """Reprojection errors of all observations, sorted, as angles: no matter what the lens does."""
    cameras, poses = colmap.model_cameras(model), colmap.model_poses(model)
    points, errors = colmap.points_by_id(model), []
    for name, seen in colmap.observations(model).items():
        rays = np.column_stack(
            [cameras[name].cam_from_img(np.array([*seen.values()])), np.ones(len(seen))]
        )
        local = np.array([points[i] for i in seen]) @ poses[name][:, :3].T + poses[name][:, 3]
        crossed = np.linalg.norm(np.cross(rays, local), axis=1)
        errors.append(np.arctan2(crossed, (rays * local).sum(axis=1)))
    return np.sort(np.concatenate(errors))


@pytest.mark.parametrize(("format_", "sparse"), [("gsplat", "sparse/0"), ("colmap", "sparse")])
def test_reprojection_errors_stay(
    distorted: Path, square: SyntheticDataset, format_: str, sparse: str
) -> None:
    before = colmap.read_model(distorted / "sparse")
    assert before.num_points3D() > 100
    folder = export(distorted, format_, square.images)
    after = check_model(folder / sparse, folder / "images")
    assert {camera.width for camera in after.cameras.values()} != {320}, "the lens was bent"
    assert after.num_points3D() == before.num_points3D()
    np.testing.assert_allclose(angles(after), angles(before), rtol=1e-6, atol=1e-9)


def test_pinhole_photos_stay_as_they_are(output: Path, square: SyntheticDataset) -> None:
    folder = export(output, "gsplat")
    assert sorted(p.name for p in folder.iterdir()) == ["images", "sparse"]
    assert {p.suffix for p in (folder / "sparse" / "0").iterdir()} == {".bin"}
    after = check_model(folder / "sparse" / "0", folder / "images")
    before = colmap.read_model(output / "sparse")
    errors = (model.compute_mean_reprojection_error() for model in (before, after))
    assert next(errors) == pytest.approx(next(errors), abs=1e-9)
    for name in colmap.model_poses(before):
        assert (folder / "images" / name).read_bytes() == (square.images / name).read_bytes()
    assert sorted(p.name for p in (output / "export").iterdir()) == [".reconstruct", "gsplat"]


def test_a_dense_workspace_lists_every_photo(output: Path) -> None:
    folder = export(output, "colmap")
    names = sorted(colmap.model_poses(colmap.read_model(folder / "sparse")))
    lines = (folder / "stereo" / "patch-match.cfg").read_text().splitlines()
    assert sorted(lines[::2]) == names
    assert set(lines[1::2]) == {"__auto__, 20"}
    assert sorted((folder / "stereo" / "fusion.cfg").read_text().splitlines()) == names


def test_geojson_has_longitude_first() -> None:
    found = feature_collection({"b.jpg": (48.85, 2.29, 35.0), "a.jpg": (-33.86, 151.21, 5.0)})
    assert found["type"] == "FeatureCollection"
    assert [f["properties"]["name"] for f in found["features"]] == ["a.jpg", "b.jpg"]
    geometry = {"type": "Point", "coordinates": [2.29, 48.85, 35.0]}
    assert found["features"][1]["geometry"] == geometry
    assert feature_collection({})["features"] == []


def test_a_process_that_ends_while_it_writes_is_a_full_disk(
    distorted: Path, square: SyntheticDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(undistortion, "PROGRAM", "raise SystemExit(1)")  # as libjpeg does
    with pytest.raises(OSError, match="ended while it wrote"):
        colmap.undistort(distorted / "sparse", square.images, tmp_path / "target")


CUT_OFF = """
import pathlib, sys
sparse = pathlib.Path(sys.argv[1]) / "sparse"
sparse.mkdir(parents=True)
for name in ("cameras", "images", "points3D"):
    (sparse / f"{name}.bin").write_bytes((7).to_bytes(8, "little"))
"""


def test_a_model_that_colmap_cut_off_is_the_disks_matter(
    distorted: Path, square: SyntheticDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(undistortion, "PROGRAM", CUT_OFF)
    with pytest.raises(OSError, match="cut off"):
        colmap.undistort(distorted / "sparse", square.images, tmp_path / "target")
