from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import cv2
import h5py
import numpy as np
import pytest

from reconstruct import colmap
from reconstruct.config import validate
from reconstruct.datasets.synthetic import SyntheticDataset, write_photo
from reconstruct.errors import ConfigError, DataError, ImageError, UsageError
from reconstruct.geometry import apply_homography
from reconstruct.images import read_image
from reconstruct.training.data.colmap_depth import read_depth_map
from reconstruct.training.data.groups import Group, Shape, draw_group
from reconstruct.training.data.homographies import HomographiesConfig, random_homography, warp
from reconstruct.training.data.layout import LAYOUTS
from reconstruct.training.data.megadepth import (
    MegaDepthConfig,
    MegaDepthScene,
    SceneViews,
    draw_around_point,
)
from reconstruct.training.data.mix import MixConfig, load_source
from reconstruct.training.data.object_arrays import read_npz
from reconstruct.training.data.photometric import PhotometricConfig, vary
from reconstruct.training.data.point_crops import crop_corner
from reconstruct.training.data.prepare import pair_matrices
from reconstruct.training.data.reprojection import DepthView, interpolate_depth, reproject

SHAPE = Shape(layout=LAYOUTS["release"], crop_px=96, min_correspondences=16)
PLAIN = {"probability": 0.0, "night": 0.0}
PLAIN_LIGHT = PhotometricConfig(probability=0.0, night=0.0)


def source_of(**settings: Any) -> Any:
    config = validate(MixConfig, {"format": "mix", "sources": [settings], "weights": [1.0]}, "test")
    return load_source(config.sources[0])


def colour_difference(group: Group) -> float:
    """Median over all correspondences of the difference of the colours around both cells."""
    layout, columns = SHAPE.layout, SHAPE.layout.cells(SHAPE.crop_px)
    differences = []
    for pair in group.pairs:
        means = []
        for image, cells in zip((pair.first, pair.second), pair.cells.T, strict=True):
            x = (4 + layout.stride_px * (cells % columns)).astype(int)
            y = (4 + layout.stride_px * (cells // columns)).astype(int)
            photo = group.images[image].astype(float)
            means.append(np.mean([photo[y + j, x + i] for i in (-2, 0, 1) for j in (-2, 0, 1)], 0))
        differences.append(np.abs(means[0] - means[1]).mean(axis=1))
    return float(np.median(np.concatenate(differences)))


@pytest.fixture(scope="module")
def photos(square: SyntheticDataset) -> Path:
    return square.images


@pytest.fixture(scope="module")
def rgbd(square: SyntheticDataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("rgbd")
    for name in ("images", "depth", "reference"):
        (root / name).symlink_to(getattr(square, name))
    return root


def settings(kind: str, photos: Path, rgbd: Path, finished: Path) -> dict[str, Any]:
    if kind == "homographies":
        return {"images": str(photos), "photometric": PLAIN, "max_scale": 1.2, "stretch": 0.0}
    if kind == "rgbd":
        return {"images": str(rgbd), "photometric": PLAIN, "overlap": [0.1, 1.0]}
    return {"images": str(photos), "model": str(finished), "photometric": PLAIN, "min_shared": 20}


@pytest.mark.parametrize("kind", ["homographies", "rgbd", "colmap_points"])
def test_corresponding_cells_show_the_same(
    kind: str, photos: Path, rgbd: Path, finished: Path
) -> None:
    source = source_of(format=kind, **settings(kind, photos, rgbd, finished))
    groups = [draw_group(source, SHAPE, (0, i)) for i in range(3)]
    right = np.mean([colour_difference(group) for group in groups])
    rng = np.random.default_rng(0)
    for pair in (pair for group in groups for pair in group.pairs):
        assert len(pair.cells) >= 16
        pair.cells[:, 1] = rng.permutation(pair.cells[:, 1])
    assert right < 0.6 * np.mean([colour_difference(group) for group in groups])


@pytest.mark.parametrize("kind", ["homographies", "rgbd", "colmap_points"])
def test_a_group_depends_on_its_seed_alone(
    kind: str, photos: Path, rgbd: Path, finished: Path
) -> None:
    given = settings(kind, photos, rgbd, finished) | {"photometric": {}}
    first, second = (source_of(format=kind, **given) for _ in range(2))
    draw_group(first, SHAPE, (0, 7))  # what was drawn before does not matter
    a, b = (
        draw_group(first, SHAPE, (0, 1)),
        draw_group(pickle.loads(pickle.dumps(second)), SHAPE, (0, 1)),
    )
    assert np.array_equal(a.images, b.images)
    assert [p.cells.tolist() for p in a.pairs] == [p.cells.tolist() for p in b.pairs]
    assert not np.array_equal(a.images, draw_group(first, SHAPE, (0, 2)).images)
    assert first.identity() == second.identity()
    json.dumps(first.identity())


def test_both_sides_change_their_light_independently() -> None:
    image = np.random.default_rng(0).integers(0, 256, (48, 48, 3)).astype(np.uint8)
    rng = np.random.default_rng(1)
    looks = np.array([vary(image, PhotometricConfig(), rng).mean(axis=(0, 1)) for _ in range(40)])
    assert (looks.std(axis=0) > 15).all()
    assert len(np.unique(looks, axis=0)) == 40
    off = PhotometricConfig(probability=0.0, night=0.0)
    assert np.array_equal(vary(image, off, rng), image)
    night = PhotometricConfig(probability=0.0, night=1.0)
    assert np.mean([vary(image, night, rng).mean() for _ in range(10)]) < 0.8 * image.mean()


def test_a_warped_photo_lies_where_its_homography_says() -> None:
    rows, columns = np.mgrid[0:200, 0:200]
    photo = np.stack([columns, rows, columns], axis=2).astype(np.uint8)  # a pixel shows its index
    config = HomographiesConfig(format="homographies", images="x")
    homography = random_homography(
        config, 64, 1.0, np.array([100.0, 100.0]), np.random.default_rng(3)
    )
    crop = warp(photo, homography, 64)
    centres = np.array([[10.5, 20.5], [40.5, 33.5], [32.5, 60.5]])
    expected = apply_homography(np.linalg.inv(homography), centres) - 0.5
    for (x, y), value in zip(centres, expected, strict=True):
        np.testing.assert_allclose(crop[int(y), int(x), :2], value, atol=1.0)


def test_crops_of_a_fixed_view_show_one_place_under_several_lights(tmp_path: Path) -> None:
    # Three photos of one scene: the colour tells which photo, its brightness where in it.
    ramp = np.linspace(60, 250, 240)[None, :] * np.linspace(0.6, 1.0, 180)[:, None]
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        for channel in range(3):
            photo = np.zeros((180, 240, 3), np.uint8)
            photo[..., channel] = ramp
            cv2.imwrite(str(tmp_path / folder / f"{channel}.png"), photo)
    given = {"images": str(tmp_path), "cameras": ["a", "b"], "photometric": PLAIN, "variants": 3}
    source = source_of(format="fixed_views", **given)
    group = draw_group(source, SHAPE, (0, 0))
    assert sorted(group.images.sum(axis=(1, 2)).argmax(axis=1).tolist()) == [0, 1, 2]
    grey = Group(images=np.repeat(group.images.max(axis=3, keepdims=True), 3, 3), pairs=group.pairs)
    assert colour_difference(grey) < 8
    (tmp_path / "b" / "2.png").unlink()
    with pytest.raises(DataError, match="2 photos; a group takes 3"):
        source_of(format="fixed_views", **given)
    cv2.imwrite(str(tmp_path / "b" / "2.png"), np.zeros((90, 240, 3), np.uint8))
    with pytest.raises(DataError, match="one size"):
        source_of(format="fixed_views", **given)
    with pytest.raises(UsageError, match="no such folder"):
        source_of(format="fixed_views", **given | {"cameras": ["c"]})


def test_reprojection_by_hand() -> None:
    # f = 10, centre (5, 5). A plane 2 m away, and the second camera 0.2 m to the right: one pixel.
    intrinsics = np.array([[10.0, 0.0, 5.0], [0.0, 10.0, 5.0], [0.0, 0.0, 1.0]])
    still = np.eye(4)[:3]
    moved = still.copy()
    moved[0, 3] = -0.2
    depth = np.full((10, 10), 2.0, np.float32)
    first, second = (
        DepthView(intrinsics=intrinsics, cam_from_world=pose, depth=depth)
        for pose in (still, moved)
    )
    positions = np.array([[5.0, 5.0], [0.5, 5.0], [9.9, 5.0], [-1.0, 5.0]])
    target, seen = reproject(positions, first, second, 0.05)
    np.testing.assert_allclose(target[:2], [[4.0, 5.0], [-0.5, 5.0]])
    assert seen.tolist() == [True, False, False, False]
    nearer = DepthView(intrinsics=intrinsics, cam_from_world=moved, depth=0.9 * depth)
    assert not reproject(positions, first, nearer, 0.05)[1].any()
    assert reproject(positions, first, nearer, 0.2)[1].tolist() == [True, False, False, False]


def test_depth_between_pixels_and_beside_holes() -> None:
    depth = np.array([[1.0, 2.0, 0.0], [3.0, 4.0, 5.0]], np.float32)
    positions = np.array([[1.0, 1.0], [0.5, 0.5], [2.0, 1.0], [1.5, 1.5], [np.nan, 0.0]])
    values = interpolate_depth(depth, positions)
    assert values[:2].tolist() == [2.5, 1.0]
    assert np.isnan(values[2:]).all()  # a hole, the last row, no position


def write_depth_map(path: Path, depth: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(
        f"{depth.shape[1]}&{depth.shape[0]}&1&".encode() + depth.astype("<f4").tobytes()
    )


def test_a_dense_workspace(
    square: SyntheticDataset, finished: Path, tmp_path: Path, rgbd: Path
) -> None:
    (tmp_path / "images").symlink_to(square.images)
    (tmp_path / "sparse").symlink_to(finished / "sparse")
    depth = {name: rendered_depth(square, name) for name in square.names}
    for number, (name, values) in enumerate(depth.items()):
        # Every other map at half size, as patch_match_stereo makes them where told to.
        step = 1 + number % 2
        scale = model_scale(square, finished)
        write_depth_map(
            tmp_path / "stereo" / "depth_maps" / f"{name}.geometric.bin",
            values[::step, ::step] * scale,
        )
    source = source_of(
        format="colmap_depth", images=str(tmp_path), photometric=PLAIN, overlap=[0.1, 1.0]
    )
    assert colour_difference(draw_group(source, SHAPE, (0, 0))) < 25
    with pytest.raises(ImageError, match=r"nothing\.bin: not a depth map of COLMAP"):
        read_depth_map(tmp_path / "nothing.bin")
    (tmp_path / "cut.bin").write_bytes(b"9&9&1&abcd")
    with pytest.raises(ImageError, match=r"cut\.bin"):
        read_depth_map(tmp_path / "cut.bin")


def rendered_depth(square: SyntheticDataset, name: str) -> np.ndarray:
    import cv2

    path = (square.depth / name).with_suffix(".png")
    return cv2.imread(str(path), cv2.IMREAD_UNCHANGED).astype(np.float32) / 1000.0


def model_scale(square: SyntheticDataset, finished: Path) -> float:
    """Units of the model a metre."""
    from reconstruct.evaluation.poses import similarity
    from reconstruct.geometry import projection_center

    models = [colmap.read_model(p) for p in (square.reference, finished / "sparse")]
    poses = [colmap.model_poses(model) for model in models]
    names = sorted(poses[1])
    centres = [np.array([projection_center(p[name]) for name in names]) for p in poses]
    return similarity(*centres)[0]


def test_megadepth_from_undistorted_models_to_groups(
    square: SyntheticDataset, finished: Path, tmp_path: Path, command: Any
) -> None:
    scene = tmp_path / "Undistorted_SfM" / "0001"
    depths = tmp_path / "MegaDepth_v1" / "0001" / "dense0" / "depths"
    scene.mkdir(parents=True)
    depths.mkdir(parents=True)
    (scene / "images").symlink_to(square.images)
    (scene / "sparse").symlink_to(finished / "sparse")
    scale = model_scale(square, finished)
    for name in square.names[:-2]:
        with h5py.File(depths / f"{Path(name).stem}.h5", "w") as file:
            file["depth"] = rendered_depth(square, name) * scale
    with h5py.File(depths / f"{Path(square.names[-2]).stem}.h5", "w") as file:
        file["depth"] = np.full((240, 320), -1.0, np.float32)  # a mask in the place of depth
    scenes = tmp_path / "scenes"
    assert command("prepare", "megadepth", tmp_path, "--output", scenes).status == 0
    assert "0 new" in command("prepare", "megadepth", tmp_path, "--output", scenes).out
    arrays = read_npz(scenes / "0001.npz")
    plain = np.load(scenes / "0001.npz", allow_pickle=True)  # as the release's own training does
    assert sorted(arrays) == sorted(plain.files)
    assert [value is None for value in arrays["depth_paths"]] == [False] * 4 + [True] * 2
    overlap = arrays["overlap_matrix"]
    assert np.allclose(np.diag(overlap)[:4], 1.0)
    assert (overlap[4:] == -1).all()
    settings = {"images": str(tmp_path), "scene_info": "scenes", "photometric": PLAIN}
    for crops in ("release", "warped"):
        source = source_of(format="megadepth", overlap=[0.1, 1.0], crops=crops, **settings)
        assert colour_difference(draw_group(source, SHAPE, (0, 0))) < 25
    assert set(plain.files) == {
        *("image_paths", "depth_paths", "intrinsics", "poses", "overlap_matrix"),
        *("scale_ratio_matrix", "points3D_id_to_2D", "points3D_id_to_ndepth"),
    }
    with pytest.raises(DataError, match=r"overlap 0\.99 to 0\.999"):
        source_of(format="megadepth", overlap=[0.99, 0.999], **settings)
    with pytest.raises(UsageError, match=r"0002\.npz"):
        source_of(format="megadepth", scenes=["0002"], **settings)


def test_overlap_and_scale_ratio_by_hand() -> None:
    first, second = {1: 1.0, 2: 1.0, 6: 3.0}, {2: 4.0, 3: 1.0, 4: 1.0, 6: 1.5}
    overlap, ratio = pair_matrices([first, second, None])
    np.testing.assert_allclose(overlap, [[1, 2 / 3, -1], [0.5, 1, -1], [-1, -1, -1]])
    assert ratio.tolist() == [[1.0, 2.0, -1.0], [2.0, 1.0, -1.0], [-1.0, -1.0, -1.0]], "the least"


def test_crops_stay_inside_the_photo() -> None:
    size = (300, 200)
    assert crop_corner(np.array([150.9, 100.2]), size, 96) == (102, 52)
    assert crop_corner(np.array([3.0, 199.0]), size, 96) == (0, 104)
    assert crop_corner(np.array([299.9, 20.0]), size, 96) == (204, 0)
    assert crop_corner(np.array([150.0, 100.0]), size, 201) is None


def test_crops_of_the_release_are_pixels_of_the_photos(
    square: SyntheticDataset, finished: Path
) -> None:
    model = colmap.read_model(finished / "sparse")
    observed, poses = colmap.observations(model), colmap.model_poses(model)
    matrix = {n: colmap.pinhole_matrix(c) for n, c in colmap.model_cameras(model).items()}
    names, scale = sorted(poses)[:2], model_scale(square, finished)
    shared = sorted(observed[names[0]].keys() & observed[names[1]].keys())
    views = SceneViews(
        square.images,
        MegaDepthScene(
            path=Path(),
            images=names,
            depths=names,
            intrinsics=[matrix[name] for name in names],
            poses=[poses[name] for name in names],
            points=[observed[name] for name in names],
            ndepths=[dict.fromkeys(observed[name], 1.0) for name in names],
            pairs=np.array([[0, 1]]),
        ),
    )
    views.view = lambda index: DepthView(  # type: ignore[method-assign]
        intrinsics=matrix[names[index]],
        cam_from_world=poses[names[index]],
        depth=(rendered_depth(square, names[index]) * scale).astype(np.float32),
    )
    config = MegaDepthConfig(format="megadepth", images="", lights=1, photometric=PLAIN_LIGHT)
    group = draw_around_point(views, config, SHAPE, np.random.default_rng(0))
    assert group is not None
    for name, image in zip(names, group.images, strict=True):
        corners = {
            crop_corner(np.array(observed[name][i]), (320, 240), SHAPE.crop_px) for i in shared
        }
        photo = read_image(square.images / name)
        assert any((photo[y : y + 96, x : x + 96] == image).all() for x, y in corners)
    assert colour_difference(group) < 25


def test_absolute_and_relative_depth_differences() -> None:
    flat = np.full((10, 10), 4.0, np.float32)
    eye = np.array([[10.0, 0, 5], [0, 10, 5], [0, 0, 1]])
    first = DepthView(intrinsics=eye, cam_from_world=np.eye(3, 4), depth=flat)
    second = DepthView(intrinsics=eye, cam_from_world=np.eye(3, 4), depth=flat + 0.1)
    for relative, expected in ((True, True), (False, False)):
        _, seen = reproject(np.array([[5.0, 5.0]]), first, second, 0.05, relative=relative)
        assert seen.tolist() == [expected]


def test_what_crops_of_the_release_have_not() -> None:
    with pytest.raises(ConfigError, match="go with `crops: warped`"):
        source_of(format="megadepth", images="x", rotation_deg=5.0)


class _Harmful:
    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return (pytest.fail, ("unpickled an object",))


def test_a_scene_file_runs_nothing(tmp_path: Path) -> None:
    np.savez(tmp_path / "bad.npz", image_paths=np.array([_Harmful()], object))
    with pytest.raises(DataError, match=r"bad\.npz.*holds .*Fail"):
        read_npz(tmp_path / "bad.npz")


def test_mixed_by_weights(photos: Path, rgbd: Path) -> None:
    sources = [
        {"format": "homographies", "images": str(photos), "variants": 3},
        {"format": "rgbd", "images": str(rgbd), "overlap": [0.1, 1.0]},
    ]
    data = {"format": "mix", "sources": sources, "weights": [3.0, 1.0]}
    mix = load_source(validate(MixConfig, data, "test"))
    kinds = [len(draw_group(mix, SHAPE, (0, i)).images) for i in range(40)]
    assert 22 <= kinds.count(3) <= 38
    with pytest.raises(ConfigError, match="weights: expected 2 positive numbers"):
        validate(MixConfig, data | {"weights": [1.0]}, "test")


def test_data_that_never_gives_a_pair(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("reconstruct.training.data.groups.ATTEMPTS", 3)
    write_photo(tmp_path / "a.jpg", np.zeros((8, 8, 3), np.uint8))
    source = source_of(format="homographies", images=str(tmp_path))
    with pytest.raises(DataError, match="no pair with 16 or more correspondences in 3 draws"):
        draw_group(source, SHAPE, (0, 0))
