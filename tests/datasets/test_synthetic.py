import itertools

import cv2
import numpy as np
import pycolmap
import pytest

from reconstruct.datasets import textures
from reconstruct.datasets.rendering import illuminate, render
from reconstruct.datasets.scene import NO_SURFACE_M, back_project, project
from reconstruct.datasets.synthetic import DAY, NIGHT, build_scene, orbit_views, write_dataset
from reconstruct.errors import UsageError
from reconstruct.geometry import quaternion, relative_pose, rotation_angle_deg
from reconstruct.images import read_image

SIZE = (480, 360)
SMALL = (160, 120)
QUICK = {"views": 3, "size": SMALL, "night": True, "texels_per_m": 12.0}


@pytest.fixture(scope="module")
def square():
    return build_scene(0, texels_per_m=72.0)


@pytest.fixture(scope="module")
def day(square):
    return illuminate(square, DAY)


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    return write_dataset(tmp_path_factory.mktemp("square"), **QUICK)


def warp(source, source_view, target, target_view):
    """The source photo as the target sees it, and where that is known: same surface, inside."""
    points = back_project(target_view, target.depth).reshape(-1, 3)
    pixels, depth = project(source_view, points)
    x, y = ((pixels - 0.5).reshape(*target.depth.shape, 2).astype(np.float32)).transpose(2, 0, 1)
    x, y = np.nan_to_num(x, nan=-9), np.nan_to_num(y, nan=-9)
    seen = cv2.remap(source.depth, x, y, cv2.INTER_LINEAR)
    grey = cv2.cvtColor(source.image, cv2.COLOR_RGB2GRAY).astype(np.float32)
    warped = cv2.remap(grey, x, y, cv2.INTER_CUBIC)
    known = np.abs(seen - depth.reshape(seen.shape)) < 0.01 * seen
    return warped, cv2.erode(known.astype(np.uint8), np.ones((9, 9))) > 0


def shift(a, b, mask):
    """(2,) pixels by which b must move to become a: least squares on the gradient."""
    gy, gx = np.gradient(cv2.GaussianBlur((a + b) / 2, None, 1.0))
    difference = (cv2.GaussianBlur(b, None, 1.0) - cv2.GaussianBlur(a, None, 1.0))[mask]
    gradient = np.column_stack([gx[mask], gy[mask], np.ones(mask.sum())])
    return np.linalg.lstsq(gradient, difference, rcond=None)[0][:2]


def test_photos_depth_and_poses_agree_far_below_a_pixel(day):
    views = orbit_views(12, SIZE)
    a, b = views[4], views[5]
    source, target = render(day, a), render(day, b)
    warped, known = warp(source, a, target, b)
    grey = cv2.cvtColor(target.image, cv2.COLOR_RGB2GRAY).astype(np.float32)
    assert known.mean() > 0.5
    assert np.corrcoef(warped[known], grey[known])[0, 1] > 0.95
    assert np.abs(shift(grey, warped, known)).max() < 0.02
    for rows in np.split(np.arange(SIZE[1]), 4):
        for columns in np.split(np.arange(SIZE[0]), 4):
            tile = np.ix_(rows, columns)
            if known[tile].mean() > 0.5:
                assert np.abs(shift(grey[tile], warped[tile], known[tile])).max() < 0.1


def test_neighbours_overlap_with_a_baseline():
    views = orbit_views(12)
    for a, b in itertools.pairwise(views):
        turn = rotation_angle_deg(relative_pose(a.cam_from_world, b.cam_from_world)[:, :3])
        assert 8 < turn < 13


def test_names_sort_in_the_order_of_the_views():
    names = [view.name for view in orbit_views(101)]
    assert names == sorted(names)
    assert names[0] == "day-000"
    assert orbit_views(0) == ()


def test_sky_has_no_depth_and_ground_has(day):
    depth = render(day, orbit_views(3, SIZE)[1]).depth
    assert depth.dtype == np.float32
    assert (depth[0] == NO_SURFACE_M).mean() > 0.5
    assert depth[-1].min() > 1.0
    assert depth.max() < 40.0


def test_night_is_no_tone_curve_of_day(square, day):
    """However each grey level of the day is mapped, most of the night remains unexplained."""
    view = orbit_views(3, SIZE)[1]
    photos = [render(lit, view).image for lit in (day, illuminate(square, NIGHT))]
    by_day, by_night = (cv2.cvtColor(photo, cv2.COLOR_RGB2GRAY).astype(float) for photo in photos)
    assert np.median(by_night) < 0.5 * np.median(by_day)
    assert (by_night > by_day + 20).mean() > 0.005  # lanterns and lit windows
    levels = by_day.astype(int).ravel()
    count = np.bincount(levels, minlength=256)
    curve = np.bincount(levels, by_night.ravel(), 256) / np.maximum(count, 1)
    assert np.var(by_night.ravel() - curve[levels]) > 0.6 * np.var(by_night)


def test_equal_arguments_give_equal_bytes(written, tmp_path):
    again = write_dataset(tmp_path, **QUICK)
    root = written.images.parent
    files = sorted(path.relative_to(root) for path in root.rglob("*.*"))
    assert files == sorted(path.relative_to(tmp_path) for path in again.images.parent.rglob("*.*"))
    assert len(files) == 5 + 5 + 3 + 3
    for file in files:
        assert (root / file).read_bytes() == (tmp_path / file).read_bytes(), file


def test_another_seed_is_another_square_and_night_is_asked_for(written, tmp_path):
    other = write_dataset(tmp_path, **QUICK | {"seed": 1, "night": False})
    assert other.night is None
    assert other.night_names == ()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["depth", "images", "reference"]
    first, second = (read_image(d.images / "day-00.jpg") for d in (written, other))
    assert np.abs(first.astype(int) - second).mean() > 10


def test_what_is_returned_is_there(written, day):
    assert written.names == ("day-00.jpg", "day-01.jpg", "day-02.jpg")
    assert written.night_names == ("night-00.jpg", "night-01.jpg")
    assert read_image(written.images / "day-02.jpg").shape == (120, 160, 3)
    assert read_image(written.night / "night-01.jpg").shape == (120, 160, 3)
    depth = cv2.imread(str(written.depth / "day-00.png"), cv2.IMREAD_UNCHANGED)
    # Shapes do not depend on the texels per metre, in which the two scenes differ.
    exact = render(day, orbit_views(3, SMALL)[0]).depth
    assert depth.dtype == np.uint16
    np.testing.assert_array_equal(depth == 0, exact == NO_SURFACE_M)
    assert np.abs(depth / 1000.0 - exact).max() < 0.00051


def test_colmap_reads_the_same_numbers(written):
    model = pycolmap.Reconstruction(written.reference)
    views = orbit_views(3, SMALL)
    assert [image.name for _, image in sorted(model.images.items())] == list(written.names)
    points = np.array([[0.3, 1.0, 2.0], [-4.0, 6.0, 3.0], [2.0, -1.0, 0.0]])
    for view, (_, image) in zip(views, sorted(model.images.items()), strict=True):
        pose = image.cam_from_world().matrix()
        np.testing.assert_allclose(pose, view.cam_from_world, rtol=0, atol=1e-13)
        camera = model.cameras[image.camera_id]
        assert camera.model.name == "PINHOLE"
        np.testing.assert_array_equal(camera.calibration_matrix(), view.camera.matrix)
        pixels, _ = project(view, points)
        expected = [image.project_point(point) for point in points]
        np.testing.assert_allclose(pixels, expected, atol=1e-9)


def test_night_poses_lie_between_the_days(written):
    day, night = (pycolmap.Reconstruction(p) for p in (written.reference, written.night_reference))
    x = [[i.projection_center()[0] for _, i in sorted(m.images.items())] for m in (day, night)]
    assert x[0][0] < x[1][0] < x[0][1] < x[1][1] < x[0][2]


@pytest.mark.parametrize("views", [1, 0, -3])
def test_too_few_views_are_an_error_before_anything_is_written(tmp_path, views):
    with pytest.raises(UsageError, match=f"at least 2 views, got {views}"):
        write_dataset(tmp_path / "new", views=views)
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("axis", np.eye(3).tolist())
def test_quaternion_of_half_a_turn(axis):
    rotation = 2 * np.outer(axis, axis) - np.eye(3)
    np.testing.assert_allclose(np.abs(quaternion(rotation)), [0, *axis], atol=1e-12)


def test_quaternion_of_a_quarter_turn_about_z():
    rotation = np.array([[0.0, -1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
    np.testing.assert_allclose(quaternion(rotation), np.sqrt([0.5, 0, 0, 0.5]), atol=1e-12)


@pytest.mark.parametrize("name", ["stone", "crate", "posters", "lantern", "paving", "facade"])
@pytest.mark.parametrize("size", [(3.0, 5.5), (0.1, 0.1), (0.1, 3.0), (3.0, 0.1)])
def test_painters_fill_their_size_and_never_repeat(name, size):
    painter, rng = getattr(textures, name), np.random.default_rng(0)
    first, second = painter(rng, size, 40.0), painter(rng, size, 40.0)
    assert first.albedo.shape == first.glow.shape == (round(size[1] * 40), round(size[0] * 40), 3)
    assert first.albedo.dtype == first.glow.dtype == np.uint8
    assert (first.albedo != second.albedo).any()
