"""LightGlue with made-up weights whose matches are known, and what is said of the wrong ones."""

from __future__ import annotations

import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper

from reconstruct.errors import UsageError, WeightsError
from reconstruct.features import published
from reconstruct.fingerprints import file_hash
from reconstruct.matching import Matcher, create
from reconstruct.matching.lightglue import DOWNLOADED, LightGlueConfig, architecture, renamed
from reconstruct.types import LocalFeatures


def nearest_neighbour_weights(path: Path, dim: int, sharpness: float = 100.0) -> Path:
    """Weights whose attention changes nothing: what is left is a softmax of the cosines over rows
    and columns, and so mutual nearest neighbours."""
    glue: Any = pytest.importorskip("kornia.feature").LightGlue
    sizes = {"input_dim": dim, "descriptor_dim": dim, "num_heads": 1, "n_layers": 2}
    entries = glue(None, **sizes, weights=None).state_dict()
    for name in entries:
        if ".ffn.3." in name:
            entries[name].zero_()
        elif "final_proj" in name:  # each side is divided by the fourth root of its length
            scale = (sharpness * dim**0.5) ** 0.5
            entries[name].copy_(scale * torch.eye(dim) if "weight" in name else torch.zeros(dim))
        elif "matchability" in name:
            entries[name].fill_(20.0 if "bias" in name else 0.0)
    torch.save(entries, path)
    return path


def exported(path: Path, dim: int | str = 4) -> Path:
    """A network that matches keypoint i with keypoint i of the first two, scored by x."""
    floats = {
        name: helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, "n", last])
        for name, last in (("kpts0", 2), ("kpts1", 2), ("desc0", dim), ("desc1", dim))
    }
    index = helper.make_tensor("rows", TensorProto.INT64, [2, 2], [1, 1, 0, 0])
    first = helper.make_tensor("first", TensorProto.INT64, [], [0])
    nodes = [
        helper.make_node("Identity", ["rows"], ["matches"]),
        helper.make_node("Gather", ["kpts0", "first"], ["image"], axis=0),
        helper.make_node("Gather", ["image", "first"], ["column"], axis=1),
        helper.make_node("Concat", ["column"], ["scores"], axis=0),
    ]
    outputs = [
        helper.make_tensor_value_info("matches", TensorProto.INT64, [2, 2]),
        helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["n"]),
    ]
    graph = helper.make_graph(nodes, "glue", list(floats.values()), outputs, [index, first])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    onnx.save(model, path)
    return path


def features(keypoints: list[list[float]], dim: int = 4) -> LocalFeatures:
    count = len(keypoints)
    return LocalFeatures(
        keypoints=np.array(keypoints, np.float32),
        scales=np.ones(count, np.float32),
        scores=np.ones(count, np.float32),
        descriptors=np.eye(max(count, dim), dim, dtype=np.float32)[:count],
        image_size=(200, 100),
    )


def lightglue(weights: Path | str, **settings: Any) -> Matcher:
    given = {"method": "lightglue", "weights": str(weights), **settings}
    return create(LightGlueConfig.model_validate(given), "cpu")


def matched(matcher: Matcher, first: LocalFeatures, second: LocalFeatures) -> Any:
    return matcher.match(matcher.prepare(first), matcher.prepare(second))


def test_an_exported_network_is_given_positions_from_the_middle(tmp_path: Path) -> None:
    matcher = lightglue(exported(tmp_path / "glue.onnx"))
    image = features([[150.0, 50.0], [200.0, 100.0]])
    prepared: Any = matcher.prepare(image)
    assert prepared.positions[0].tolist() == [[0.5, 0.0], [1.0, 0.5]]
    found = matched(matcher, image, image)
    assert found.indices.tolist() == [[0, 0], [1, 1]]  # sorted, with their scores
    assert found.scores.tolist() == [1.0, 0.5]
    strict = lightglue(tmp_path / "glue.onnx", threshold=0.7)
    assert matched(strict, image, image).indices.tolist() == [[0, 0]]


def test_an_image_without_keypoints_has_no_matches(tmp_path: Path) -> None:
    matcher = lightglue(exported(tmp_path / "glue.onnx", dim="d"))
    none = LocalFeatures.empty((200, 100), 4)
    assert len(matched(matcher, none, features([[1.0, 1.0]]))) == 0


def test_weights_decide_what_is_up_to_date_not_their_path(tmp_path: Path) -> None:
    one, two = exported(tmp_path / "a.onnx"), exported(tmp_path / "b.onnx")
    other = exported(tmp_path / "c.onnx", dim=5)
    assert lightglue(one).identity() == lightglue(two).identity() != lightglue(other).identity()


@pytest.mark.parametrize("kind", DOWNLOADED)
def test_what_the_authors_publish_is_loaded_if_it_is_what_is_known(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("kornia")
    monkeypatch.setenv("RECONSTRUCT_CACHE", str(tmp_path))
    file = published.FILES[DOWNLOADED[kind]]
    monkeypatch.setitem(published.FILES, DOWNLOADED[kind], replace(file, urls=()))
    with pytest.raises(WeightsError, match="not in the cache"):
        lightglue(kind).identity()
    path = nearest_neighbour_weights(tmp_path / DOWNLOADED[kind], dim=16)
    with pytest.raises(WeightsError, match=f"the file of that name has {file.known}"):
        lightglue(kind).identity()
    known = replace(file, urls=(), known=file_hash(path))
    monkeypatch.setitem(published.FILES, DOWNLOADED[kind], known)
    image = features([[10.0, 10.0], [20.0, 20.0]], dim=16)
    assert matched(lightglue(kind), image, image).indices.tolist() == [[0, 0], [1, 1]]


def test_descriptors_of_another_kind(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="for descriptors of 4 dimensions, the extractor's have 8"):
        lightglue(exported(tmp_path / "glue.onnx")).prepare(features([[1.0, 1.0]], dim=8))
    weights = nearest_neighbour_weights(tmp_path / "made_up.pth", dim=16)
    with pytest.raises(UsageError, match="for descriptors of 16 dimensions, the extractor's have"):
        lightglue(weights).prepare(features([[1.0, 1.0]], dim=8))


def test_names_of_the_authors_files() -> None:
    told = {
        "self_attn.3.Wqkv.weight": 1,
        "matcher.cross_attn.0.to_v.bias": 2,
        "matcher.posenc.Wr.weight": 3,
        "transformers.1.self_attn.out_proj.bias": 4,
    }
    assert renamed(told) == {
        "transformers.3.self_attn.Wqkv.weight": 1,
        "transformers.0.cross_attn.to_v.bias": 2,
        "posenc.Wr.weight": 3,
        "transformers.1.self_attn.out_proj.bias": 4,
    }


def test_sizes_are_read_from_the_weights() -> None:
    lighter = {
        "posenc.Wr.weight": torch.zeros(48, 2),
        "input_proj.weight": torch.zeros(96, 64),
        **{f"log_assignment.{i}.final_proj.weight": torch.zeros(96, 96) for i in range(6)},
    }
    sizes = {"input_dim": 64, "descriptor_dim": 96, "num_heads": 1, "n_layers": 6}
    assert architecture(lighter) == sizes


def test_the_wrong_file(tmp_path: Path) -> None:
    cases: list[tuple[str, Any, str]] = [
        ("none.pth", None, "no such weights file; give the path of a LightGlue"),
        ("none.onnx", None, "no such weights file"),
        ("bad.onnx", b"nonsense", "not a readable .onnx file"),
        ("bad.pth", b"nonsense", "not a readable"),
        ("other.pth", {"conv.weight": torch.zeros(3)}, "not the weights of a LightGlue"),
        ("sift.pth", {"posenc.Wr.weight": torch.zeros(32, 4)}, "scales and orientations"),
    ]
    pytest.importorskip("kornia")
    for name, content, told in cases:
        path = tmp_path / name
        if isinstance(content, bytes):
            path.write_bytes(content)
        elif content is not None:
            torch.save(content, path)
        with pytest.raises(WeightsError, match=told):
            lightglue(path).prepare(features([[1.0, 1.0]]))
    weights = torch.load(nearest_neighbour_weights(tmp_path / "made_up.pth", dim=16))
    del weights["transformers.1.cross_attn.to_v.weight"]
    torch.save(weights, tmp_path / "part.pth")
    with pytest.raises(WeightsError, match=r"no transformers\.1\.cross_attn\.to_v\.weight"):
        lightglue(tmp_path / "part.pth").prepare(features([[1.0, 1.0]]))


def test_it_goes_to_another_process(tmp_path: Path) -> None:
    matcher = lightglue(exported(tmp_path / "glue.onnx"))
    image = features([[150.0, 50.0], [200.0, 100.0]])
    expected = matched(matcher, image, image)
    copied = pickle.loads(pickle.dumps(matcher))
    np.testing.assert_array_equal(matched(copied, image, image).indices, expected.indices)
