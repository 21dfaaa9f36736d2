"""Panoramas cut into views: directions by hand, masks that part the sphere, files, a whole run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from conftest import CHAIN
from fixtures import textured
from panoramas import walk, write_panoramas
from PIL import ExifTags, Image

import reconstruct
from reconstruct import colmap
from reconstruct.datasets.gps import exif_position
from reconstruct.datasets.panorama import PanoramaConfig
from reconstruct.datasets.sphere import SphereView, cut, nearest_view, panorama_pixels
from reconstruct.errors import DataError, UsageError
from reconstruct.geometry import projection_center
from reconstruct.images import image_size, read_image


def view(yaw: float = 0, pitch: float = 0, fov: float = 90, size: int = 4) -> SphereView:
    return SphereView(yaw_deg=yaw, pitch_deg=pitch, field_of_view_deg=fov, size=size)


def config(images: Path, **settings: Any) -> PanoramaConfig:
    data = {"format": "panorama", "images": str(images), **settings}
    return PanoramaConfig.model_validate(data)


def test_directions_by_hand() -> None:
    assert view().focal == pytest.approx(2)
    # The first pixel of a view to the right: 0.75 to its left is ahead of the panorama.
    expected = np.array([1, -0.75, 0.75]) / np.linalg.norm([1, 0.75, 0.75])
    np.testing.assert_allclose(view(yaw=90).rays()[0, 0], expected, atol=1e-12)
    np.testing.assert_allclose(view(pitch=30).rotation[2], [0, -0.5, np.sqrt(0.75)], atol=1e-12)
    np.testing.assert_allclose(view(yaw=90, pitch=90).rotation[2], [0, -1, 0], atol=1e-12)
    rays = np.array([[0, 0, 1.0], [1, 0, 0], [-1, 0, 1], [0, -1, 1], [0, 1, 0]])
    expected_px = [[200, 100], [300, 100], [150, 100], [200, 50], [200, 200]]
    np.testing.assert_allclose(panorama_pixels(rays, 400), expected_px, atol=1e-9)


@pytest.mark.parametrize(
    "around", [view(yaw=180, size=60), view(20, 35, 70, 60), view(0, -90, 90, 60)]
)
def test_a_view_shows_what_the_panorama_has_in_its_directions(around: SphereView) -> None:
    """Also behind the seam: colours are a smooth function of the direction."""

    def colours(rays: Any) -> Any:
        return 127.5 + 120 * rays

    u, v = np.meshgrid(np.arange(800) + 0.5, np.arange(400) + 0.5)
    lon, lat = (u / 800 - 0.5) * 2 * np.pi, (0.5 - v / 400) * np.pi
    rays = np.stack([np.cos(lat) * np.sin(lon), -np.sin(lat), np.cos(lat) * np.cos(lon)], axis=-1)
    panorama = np.rint(colours(rays)).astype(np.uint8)
    assert np.abs(cut(panorama, around) - colours(around.rays())).max() < 2.0


def test_each_direction_counts_in_one_view() -> None:
    views = [view(60.0 * k, pitch, size=90) for pitch in (-30, 30) for k in range(6)]
    rays = np.random.default_rng(0).normal(size=(400, 3))
    rays /= np.linalg.norm(rays, axis=1)[:, None]
    rays = rays[np.abs(rays[:, 1]) < 0.7]
    count = np.zeros(len(rays))
    for one in views:
        in_view = rays @ one.rotation.T
        ahead = in_view[:, 2] > 0.1
        pixel = np.full((len(rays), 2), -1.0)
        pixel[ahead] = in_view[ahead, :2] / in_view[ahead, 2:] * one.focal + one.size / 2
        inside = ((pixel >= 0) & (pixel < one.size)).all(1)
        x, y = pixel[inside].astype(int).T
        count[inside] += nearest_view(views, one)[y, x] == 255
    assert (count == 1).mean() > 0.97, "but for pixels through which a border runs"


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "panoramas"
    (folder / "a").mkdir(parents=True)
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 1
    exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.FocalLengthIn35mmFilm] = 10
    exif.get_ifd(ExifTags.IFD.GPSInfo).update(
        {1: "N", 2: (48.0, 30.0, 0.0), 3: "E", 4: (9.0, 0.0, 0.0)}
    )
    Image.fromarray(textured(100, 200)).save(folder / "a" / "1.jpg", exif=exif)
    Image.fromarray(textured(50, 100, 1)).save(folder / "2.png")
    return folder


def test_the_views_are_a_rig_without_size(photos: Path, tmp_path: Path) -> None:
    Image.fromarray(textured(50, 80)).save(photos / "cropped.jpg")
    (photos / "broken.jpg").write_bytes(b"no picture")
    dataset = config(photos, views={"around": 4}).load(tmp_path / "scratch")
    assert dataset.names[:2] == ("yaw000_pitch+00/2.png.jpg", "yaw000_pitch+00/a/1.jpg")
    assert len(dataset.names) == 8
    assert dataset.original("yaw270_pitch+00/2.png.jpg") == "2.png"
    assert "80 x 50 pixels; an equirectangular panorama" in dataset.skipped["cropped.jpg"]
    assert set(dataset.skipped) == {"cropped.jpg", "broken.jpg"}
    assert {image_size(dataset.path(name)) for name in dataset.names} == {(64, 64)}, "200 / pi"
    rigs = dataset.rigs
    assert rigs is not None
    assert (rigs.calibrated, rigs.has_size, rigs.one_place) == (True, False, True)
    assert rigs.frame(dataset.names[0]) == rigs.frame("yaw090_pitch+00/2.png.jpg")
    camera = rigs.camera(dataset.names[0], (64, 64))
    assert camera is not None
    np.testing.assert_allclose(camera.params, [32, 32, 32, 32])
    found = exif_position(dataset.path("yaw090_pitch+00/a/1.jpg"))
    assert found is not None
    assert found.latitude == 48.5
    with Image.open(dataset.path("yaw090_pitch+00/a/1.jpg")) as stored:
        assert not stored.getexif().get_ifd(ExifTags.IFD.Exif), "its focal length is another"


def test_a_rerun_cuts_nothing_again(photos: Path, tmp_path: Path) -> None:
    def written() -> dict[str, int]:
        dataset = config(photos).load(tmp_path / "scratch")
        return {name: dataset.path(name).stat().st_mtime_ns for name in dataset.names}

    first = written()
    assert written() == first
    Image.fromarray(textured(50, 100, 2)).save(photos / "2.png")
    again = written()
    assert {name for name in first if first[name] != again[name]} == {
        n for n in first if "2.png" in n
    }
    (tmp_path / "scratch" / "images" / "yaw060_pitch+00" / "a" / "1.jpg").unlink()
    assert set(written()) == set(first)


def test_masks_of_panoramas_are_cut_too(photos: Path, tmp_path: Path) -> None:
    mask = np.full((100, 200), 255, np.uint8)
    mask[:, 100:] = 0  # to the right
    (tmp_path / "masks" / "a").mkdir(parents=True)
    Image.fromarray(mask).save(tmp_path / "masks" / "a" / "1.jpg.png")
    settings = {"masks": str(tmp_path / "masks"), "views": {"around": 4}}
    dataset = config(photos, **settings).load(tmp_path / "scratch")
    assert dataset.masks is not None

    def counted(name: str) -> float:
        assert dataset.masks is not None
        return float((read_image(dataset.masks / f"{name}.png") > 0).mean())

    assert counted("yaw090_pitch+00/a/1.jpg") == 0.0
    assert counted("yaw000_pitch+00/a/1.jpg") == pytest.approx(0.5, abs=0.02)
    assert counted("yaw270_pitch+00/a/1.jpg") > 0.95
    assert counted("yaw090_pitch+00/2.png.jpg") > 0.95
    Image.fromarray(mask[:, :90]).save(tmp_path / "masks" / "a" / "1.jpg.png")
    again = config(photos, **settings).load(tmp_path / "scratch")
    assert "a mask of 90 x 100 pixels for a panorama of 200 x 100" in again.skipped["a/1.jpg"]


def test_what_cannot_be_cut_is_told(photos: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="leave `cameras` out"):
        config(photos, cameras={"model": "PINHOLE", "params": [1.0, 1.0, 1.0, 1.0]})
    for pitches in ([91.0], [0.0, 0.3], [90.0], []):
        with pytest.raises(ValueError, match="pitches_deg"):
            config(photos, views={"pitches_deg": pitches})
    (tmp_path / "taken" / "images").mkdir(parents=True)
    with pytest.raises(UsageError, match="images"):
        config(photos).load(tmp_path / "taken")
    for path in list(photos.rglob("*.*")):
        path.unlink()
    Image.fromarray(textured(50, 80)).save(photos / "cropped.jpg")
    with pytest.raises(DataError, match=r"no panorama can be used, e\.g\. cropped\.jpg: 80 x 50"):
        config(photos).load(tmp_path / "scratch")


def test_panoramas_of_the_square_are_mapped_as_frames(tmp_path: Path) -> None:
    """Without size but for that of GPS: the model is in metres, with z up."""
    poses = walk(8)[1:5]
    write_panoramas(tmp_path / "photos", poses, 768)
    truth = np.array([projection_center(pose) for pose in poses])
    rows = ["name,latitude,longitude,altitude,accuracy"]
    for k, place in enumerate(colmap.geodetic(truth, (47, 8, 400)).tolist()):
        rows.append(",".join([f"P{k:02d}.jpg", *map(repr, place), "0.05"]))
    (tmp_path / "gps.csv").write_text("\n".join(rows))
    dataset = {
        "format": "panorama",
        "images": str(tmp_path / "photos"),
        "views": {"around": 4},
        "gps": {"positions": str(tmp_path / "gps.csv")},
    }
    path = tmp_path / "panorama.yaml"
    path.write_text(yaml.safe_dump(CHAIN | {"dataset": dataset}))
    done = reconstruct.run(path, output=tmp_path / "out")
    model = colmap.read_model(done.output / "sparse")
    assert (model.num_reg_images(), model.num_reg_frames()) == (16, 4)
    found = {name: projection_center(pose) for name, pose in colmap.model_poses(model).items()}
    centers = np.array([found[f"yaw000_pitch+00/P{k:02d}.jpg"] for k in range(4)])
    np.testing.assert_allclose(found["yaw180_pitch+00/P03.jpg"], centers[3], atol=1e-9)
    errors = centers - centers.mean(0) - (truth - truth.mean(0))
    assert np.linalg.norm(errors, axis=1).max() < 0.02, "metres"
    pairs = (done.output / "pairs.txt").read_text().splitlines()
    frames = [{Path(name).name for name in line.split()} for line in pairs]
    assert len(pairs) == 6 * 16
    assert all(len(frame) == 2 for frame in frames), "no view with another of its panorama"
