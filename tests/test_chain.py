"""The whole chain on the small square, against its exact ground truth."""

from __future__ import annotations

import functools
import itertools
import json
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

import reconstruct
from reconstruct import colmap
from reconstruct.config import validate
from reconstruct.datasets import square as square_dataset
from reconstruct.datasets.loading import load_dataset
from reconstruct.datasets.square import SyntheticConfig
from reconstruct.datasets.synthetic import SyntheticDataset, write_dataset
from reconstruct.parallel import cores
from reconstruct.stages.evaluate import evaluate_output
from reconstruct.storage.features import FeatureStore, open_features

Run = Callable[..., reconstruct.Run]


@pytest.fixture
def run(chain: Path, square: SyntheticDataset, tmp_path: Path) -> Run:
    """Runs the chain over the square; ``a__b=c`` sets ``a.b``."""

    def call(images: Path = square.images, **changes: Any) -> reconstruct.Run:
        overrides = {key.replace("__", "."): value for key, value in changes.items()}
        return reconstruct.run(chain, images, tmp_path / "out", overrides, verbosity=-1)

    return call


def test_the_square_is_recovered(finished: Path, square: SyntheticDataset, tmp_path: Path) -> None:
    output = Path(shutil.copytree(finished, tmp_path / "out"))
    metrics = evaluate_output(output, square.reference)
    assert (metrics.registered, metrics.reference, metrics.missing) == (6, 6, [])
    assert metrics.position_max < 0.03  # metres, from ten metres away
    assert metrics.rotation_max_deg < 0.15
    assert metrics.auc_percent["1"] > 80
    written = json.loads((output / "metrics.json").read_text())
    expected = written["poses"].pop("position_rms_expected")
    assert written["poses"] == metrics.as_dict()
    assert 0.2 < metrics.position_rms / expected < 5  # of 18 numbers, by residuals alone


def test_files_that_others_open(finished: Path) -> None:
    names = {path.name for path in finished.iterdir()}
    assert {"run.yaml", "features", "pairs.txt", "matches", "database.db", "sparse"} <= names
    assert {"report.html", "log.txt"} <= names
    told = yaml.safe_load((finished / "run.yaml").read_text(encoding="utf-8"))
    assert told["config"]["match"]["ratio"] == 0.9
    assert {"python", "torch", "pycolmap"} <= set(told["versions"])
    features, keypoints = (
        open_features(finished),
        colmap.database_keypoints(finished / "database.db"),
    )
    for name in features.fingerprints():
        np.testing.assert_array_equal(keypoints[name], features.load(name).keypoints)


def test_given_intrinsics_stay_and_guessed_ones_are_refined(
    run: Run, square: SyntheticDataset
) -> None:
    reference = colmap.model_cameras(colmap.read_model(square.reference))
    given = {name: camera.params.tolist() for name, camera in reference.items()}
    focal = given["day-00.jpg"][0]
    kept = colmap.model_cameras(run(dataset__cameras=str(square.reference)).model)
    assert {name: camera.params.tolist() for name, camera in kept.items()} == given
    refined = colmap.model_cameras(run(dataset__camera_sharing="single").model)
    guess = 1.2 * 320
    assert {name: abs(c.params[0] - guess) > 1 for name, c in refined.items()} == dict.fromkeys(
        given, True
    )
    assert refined["day-00.jpg"].params[0] == pytest.approx(focal, rel=0.05)
    fixed = run(dataset__camera_sharing="single", map__refine_intrinsics=False)
    assert colmap.model_cameras(fixed.model)["day-00.jpg"].params[0] == guess


def test_triangulation_has_the_poses_and_intrinsics_of_the_reference(
    run: Run, square: SyntheticDataset, tmp_path: Path
) -> None:
    photos = tmp_path / "photos"
    shutil.copytree(square.images, photos)
    (photos / "day-03.jpg").rename(photos / "stranger.jpg")
    found = run(photos, map={"method": "triangulate", "reference": str(square.reference)})
    reference = colmap.read_model(square.reference)
    expected = {image.name: image for image in reference.images.values()}
    assert found.model is not None
    assert {image.name for image in found.model.images.values()} == set(expected) - {"day-03.jpg"}
    for image in found.model.images.values():
        truth = expected[image.name]
        assert image.camera.params.tolist() == truth.camera.params.tolist()
        pose, wanted = image.cam_from_world(), truth.cam_from_world()
        np.testing.assert_array_max_ulp(pose.rotation.quat, wanted.rotation.quat, maxulp=2)
        assert pose.translation.tolist() == wanted.translation.tolist()
    assert found.model.num_points3D() > 100
    figures = found.summary.figures["map"]
    assert figures["not_registered"] == ["stranger.jpg"]
    assert figures["reference_without_photo"] == ["day-03.jpg"]
    assert figures["mean_reprojection_error_px"] < 1


@pytest.mark.parametrize("method", ["global", "hierarchical"])
def test_other_mapping_methods(run: Run, square: SyntheticDataset, method: str) -> None:
    found = run(map__method=method, dataset__cameras=str(square.reference))
    assert found.summary.figures["map"]["registered_images"] == 6
    assert evaluate_output(found.output, square.reference).position_max < 0.05


def test_descriptors_are_read_once_an_image(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    reads: Counter[str] = Counter()
    read = FeatureStore.read

    def counted(store: FeatureStore, key: str, only: str | None = None) -> Any:
        reads[key] += only in (None, "descriptors")
        return read(store, key, only)

    monkeypatch.setattr(FeatureStore, "read", counted)
    found = run(verify=None, map=None)
    assert found.summary.figures["match"]["matched_now"] == 15
    assert set(reads.values()) == {1}


def test_pairs_from_a_list(run: Run, square: SyntheticDataset, tmp_path: Path) -> None:
    names = list(square.names)
    lines = [f"{a} {b}" for a, b in zip(names[1:], names, strict=False)] + ["gone.jpg day-00.jpg"]
    (tmp_path / "list.txt").write_text("# by hand\n" + "\n".join(lines) + "\n")
    found = run(pair={"method": "list", "path": str(tmp_path / "list.txt")})
    expected = "".join(f"{a} {b}\n" for a, b in itertools.pairwise(names))
    assert (found.output / "pairs.txt").read_text() == expected
    assert list(found.summary.skipped) == ["gone.jpg day-00.jpg"]


def test_pairs_from_poses(run: Run, square: SyntheticDataset) -> None:
    pair = {"method": "poses", "reference": str(square.reference), "neighbors": 1}
    found = run(pair=pair)
    names = set((found.output / "pairs.txt").read_text().split())
    assert names == set(square.names)
    assert 3 <= found.summary.figures["pair"]["pairs"] <= 5


def test_masks_drop_keypoints_and_count_by_content(
    run: Run, square: SyntheticDataset, tmp_path: Path
) -> None:
    masks = tmp_path / "masks"
    masks.mkdir()
    half = np.full((240, 320), 255, np.uint8)
    half[:, :160] = 0
    Image.fromarray(half).save(masks / "day-00.jpg.png")
    sections: dict[str, Any] = {"pair": None, "match": None, "verify": None, "map": None}
    found = run(dataset__masks=str(masks), **sections)
    features = open_features(found.output)
    kept = features.load("day-00.jpg").keypoints
    assert len(kept) > 50
    assert (kept[:, 0] >= 160).all()
    assert (features.load("day-01.jpg").keypoints[:, 0] < 160).any()
    half[:, :200] = 0
    Image.fromarray(half).save(masks / "day-00.jpg.png")
    again = run(dataset__masks=str(masks), **sections)
    assert again.summary.figures["extract"]["extracted_now"] == 1
    assert (open_features(found.output).load("day-00.jpg").keypoints[:, 0] >= 200).all()


def test_a_mask_of_another_size_skips_its_photo(
    run: Run, square: SyntheticDataset, tmp_path: Path
) -> None:
    (tmp_path / "masks").mkdir()
    Image.new("L", (32, 24)).save(tmp_path / "masks" / "day-00.jpg.png")
    sections: dict[str, Any] = {"pair": None, "match": None, "verify": None, "map": None}
    found = run(dataset__masks=str(tmp_path / "masks"), **sections)
    assert "another size" in found.summary.skipped["day-00.jpg"]


def test_a_rendered_data_set_brings_cameras_and_truth_and_is_rendered_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    coarse = functools.partial(write_dataset, texels_per_m=8.0)
    monkeypatch.setattr(square_dataset, "write_dataset", coarse)
    settings = {"format": "synthetic", "views": 2, "width": 64, "height": 64, "lighting": "day"}
    config = validate(SyntheticConfig, settings, "test")
    first = load_dataset(config, tmp_path / "scratch")
    assert first.names == ("day-00.jpg", "day-01.jpg")
    assert first.cameras == first.reference is not None
    assert set(colmap.model_poses(colmap.read_model(first.reference))) == set(first.names)
    written = first.path("day-00.jpg").stat().st_mtime_ns
    assert load_dataset(config, tmp_path / "scratch") == first
    assert first.path("day-00.jpg").stat().st_mtime_ns == written
    unknown = config.model_copy(update={"known_intrinsics": False})
    assert load_dataset(unknown, tmp_path / "scratch").cameras is None


def test_commands_for_people(
    command: Callable[..., Any],
    chain: Path,
    square: SyntheticDataset,
    finished: Path,
    tmp_path: Path,
) -> None:
    output = shutil.copytree(finished, tmp_path / "out")
    common = ["--images", square.images, "--output", output]
    common += ["--set", f"dataset.cameras='{square.reference}'"]
    told = command("plan", chain, *common)
    assert told.status == 0
    assert told.out.count("up to date") == 6
    told = command("run", chain, *common)
    assert told.status == 0
    for word in ("extract", "mean keypoints", "registered images", "reprojection error"):
        assert word in told.out
    assert "map: done in" in told.err
    assert command("run", chain, *common, "-q") == type(told)(0, "", "")
    told = command("evaluate", output, "--reference", square.reference)
    assert told.status == 0
    assert "mean position error" in told.out
    told = command("export", output, "--format", "ply")
    assert (told.status, told.out.strip()) == (0, str(output / "export" / "points.ply"))
    assert "map: done in" in (output / "log.txt").read_text(encoding="utf-8")


def test_progress_in_plain_lines(
    command: Callable[..., Any], chain: Path, photos: Path, tmp_path: Path
) -> None:
    told = command("run", chain, "--images", photos, "--output", tmp_path / "out")
    (line,) = [line for line in told.err.splitlines() if line.startswith("extract: 4/4 images")]
    assert line.endswith("/s, 0 s left")


def test_threads_beyond_the_cores_are_not_started(
    chain: Path, square: SyntheticDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []
    incremental = colmap.map_images

    def watched(*arguments: Any, **more: Any) -> Any:
        asked.extend(a.threads for a in arguments if isinstance(a, colmap.MapperOptions))
        return incremental(*arguments, **more)

    monkeypatch.setattr(colmap, "map_images", watched)
    reconstruct.run(chain, square.images, tmp_path, {"map.threads": 2**31 - 1}, verbosity=-1)
    assert asked == [cores()]
