"""Statistics, the match graph and GPS residuals, on numbers worked out by hand."""

from __future__ import annotations

import base64
import math
import re
from xml.etree import ElementTree

import numpy as np
import pytest

from reconstruct import colmap
from reconstruct.datasets.gps import GpsPosition
from reconstruct.geometry import rotation_matrix
from reconstruct.report.charts import ARROW, FIELD_WIDTH, draw_residuals
from reconstruct.report.content import ResidualField
from reconstruct.report.gps import (
    aligned_residuals_m,
    draw_plan,
    gps_residuals_m,
    gps_tables,
    up_of,
)
from reconstruct.report.graph import cut_photos, graph_sentences, match_graph
from reconstruct.report.pairs import chosen_pairs, failed_pairs
from reconstruct.report.scene import ground_axes, model_view, upward
from reconstruct.report.statistics import (
    FIELD_COLUMNS,
    errors_before,
    errors_px,
    histogram,
    residual_fields,
    triangulation_angles_deg,
)


def two_views() -> colmap.ModelArrays:
    """Cameras at the origin and at x = 2, looking along z; a point at (0, 0, 2), which the second
    sees at 45 degrees, and one at (1, 0, 1)."""
    camera = colmap.make_camera("PINHOLE", (100.0, 100.0, 200.0, 200.0), (400, 400))
    camera.camera_id = 1
    poses = np.stack([np.eye(3, 4), np.eye(3, 4)])
    poses[1, 0, 3] = -2
    return colmap.ModelArrays(
        names=("a", "b"),
        cameras=(camera, camera),
        poses=poses,
        xyz=np.array([[0.0, 0, 2], [1, 0, 1]]),
        colors=np.array([[255, 0, 0], [0, 255, 0]], np.uint8),
        image=np.array([0, 0, 1, 1]),
        keypoint=np.array([0, 1, 0, 2]),
        point=np.array([0, 1, 0, 1]),
        xy=np.array([[200.0, 200], [303, 204], [100, 200], [100, 200]]),
    )


def test_errors_and_angles() -> None:
    model = two_views()
    assert model.centers.tolist() == [[0, 0, 0], [2, 0, 0]]
    np.testing.assert_allclose(errors_px(model), [0, 5, 0, 0], atol=1e-9)
    np.testing.assert_allclose(triangulation_angles_deg(model), [45, 90], atol=1e-9)


def test_errors_before_refinement_are_at_the_keypoints_that_the_model_uses() -> None:
    found = {"a": np.array([[200, 203], [300, 200]], np.float32), "b": None}
    both = errors_before(two_views(), lambda name: found[name])
    assert both is not None
    np.testing.assert_allclose(both[0], [3, 0], atol=1e-5)
    np.testing.assert_allclose(both[1], [0, 5], atol=1e-9)
    assert errors_before(two_views(), lambda name: None) is None


def test_one_wrong_match_does_not_stand_for_its_cell() -> None:
    model = two_views()
    many = np.repeat([1], 5)
    xy = model.xy[many]
    xy[4] += 2
    crowded = colmap.ModelArrays(
        names=model.names,
        cameras=model.cameras,
        poses=model.poses,
        xyz=model.xyz,
        colors=model.colors,
        image=model.image[many],
        keypoint=many,
        point=model.point[many],
        xy=xy,
    )
    (field,) = residual_fields(crowded)
    ((_, _, u, v, count),) = field.cells
    assert (u, v, count) == (pytest.approx(3), pytest.approx(4), 5)
    assert residual_fields(model)[0].cells == (), "fewer than five say nothing"


def test_long_residuals_leave_the_others_visible() -> None:
    cells = [(20.0 * i, 20.0, 0.1, 0.0, 9) for i in range(19)]
    field = ResidualField(
        title="t", caption="c", size=(400, 40), cells=(*cells, (390, 20, 8, 0, 9))
    )
    drawn = [float(x) for x in re.findall(r'l([\d.]+) 0.0" stroke', draw_residuals(field))]
    assert drawn[0] == pytest.approx(ARROW * FIELD_WIDTH / FIELD_COLUMNS, abs=0.1)
    assert drawn[-1] == pytest.approx(FIELD_WIDTH / FIELD_COLUMNS, abs=0.1), "cut at the cell"


def looking(*directions: tuple[float, float, float], right: list[list[float]]) -> np.ndarray:
    """Poses at the origin that look along ``directions`` with their x axes along ``right``."""
    poses = np.zeros((len(directions), 3, 4))
    poses[:, 0, :3], poses[:, 2, :3] = right, directions
    poses[:, 1, :3] = np.cross(poses[:, 2, :3], poses[:, 0, :3])
    return poses


def test_up_is_square_to_what_level_cameras_call_right() -> None:
    around = [[1, 0, 0], [0, 1, 0], [-1, 0, 0], [0, -1, 0]]
    drone = looking(*[(0, 0, -1)] * 4, right=around)
    np.testing.assert_allclose(upward(drone), [0, 0, 1], atol=1e-9)
    walk = looking((0, 1, 0), (-1, 0, 0), (0, -1, 0), (1, 0, 0), right=around)
    np.testing.assert_allclose(upward(walk), [0, 0, 1], atol=1e-9)
    wall = looking((0, 1, 0), (0, 1, 0), right=[[1, 0, 0], [1, 0, 0]])
    np.testing.assert_allclose(upward(wall), [0, 0, 1], atol=1e-9)


def test_histograms_keep_every_value() -> None:
    values = np.array([2, 2, 3, 3, 3, 100])
    chart = histogram("t", "x", "c", {"a": values}, whole=True)
    assert sum(chart.series[0][1]) == 6
    assert chart.edges[0] == 1.5
    assert sum(histogram("t", "x", "c", {"a": np.zeros(0)}).series[0][1]) == 0


def test_points_are_quantised_to_sixteen_bits_of_their_box() -> None:
    view = model_view("m", two_views(), {"a": 7}, 50)
    points = np.frombuffer(base64.b64decode(view.points), "<u2").reshape(-1, 3)
    places = np.array(view.low) + points / 65535 * view.size
    np.testing.assert_allclose(places, [[0, 0, 2], [1, 0, 1]], atol=view.size / 65535)
    assert view.colors == base64.b64encode(bytes([255, 0, 0, 0, 255, 0])).decode()
    assert [camera.photo for camera in view.cameras] == [7, -1]
    assert view.cameras[0].slopes == (2.0, 2.0)
    assert view.up == (0, -1, 0)
    assert model_view("m", two_views(), {}, 1).shown == 1


def test_the_photo_between_two_groups_holds_them_together() -> None:
    names = list("abcde")
    pairs = {
        ("a", "b"): 9,
        ("a", "c"): 9,
        ("b", "c"): 9,
        ("c", "d"): 9,
        ("c", "e"): 9,
        ("d", "e"): 5,
    }
    assert cut_photos(names, pairs) == {"c": [2, 2]}
    first = graph_sentences(names, pairs, cut_photos(names, pairs))[0]
    assert first.startswith("c holds the model together")
    assert cut_photos(["a", "b", "c"], {("a", "b"): 1, ("a", "c"): 1, ("b", "c"): 1}) == {}
    assert match_graph(names, {}, None, {}) is None


def test_the_plan_is_seen_from_above_and_not_mirrored() -> None:
    model = two_views()  # it looks along z, y is down: a left of b, the points ahead of both
    ahead = ground_axes(model.poses)
    assert ahead.tolist() == [[1, 0, 0], [0, 0, 1]]
    graph = match_graph("ab", {("a", "b"): 5}, model, {})
    assert graph is not None
    (left, y), (right, _) = (node.at for node in graph.nodes)
    assert left < right
    assert y > 0.5, "the photographer stands at the lower edge of the page"


def test_models_aligned_with_gps_have_north_above_and_z_up() -> None:
    up = up_of({"models": [{"aligned": True}, {"aligned": False}]})
    assert up is not None
    assert ground_axes(two_views().poses, up).tolist() == [[1, 0, 0], [0, 1, 0]]
    assert model_view("m", two_views(), {}, 50, up=up).up == (0, 0, 1)
    assert up_of({"models": [{"aligned": True}, {"aligned": False}]}, 1) is None
    assert up_of(None) is None


def test_pairs_worth_a_look() -> None:
    verified = {("a", "b"): 90, ("a", "c"): 50, ("b", "c"): 20}
    assert [pair for _, pair in chosen_pairs(verified)] == [("a", "b"), ("a", "c"), ("b", "c")]
    assert len(chosen_pairs({("a", "b"): 5})) == 1
    assert chosen_pairs({}) == []
    counts = {("a", "d"): 70, ("c", "d"): 3, ("b", "d"): 8}
    failed = failed_pairs([*verified, *counts], verified, counts.__getitem__)
    assert failed == [("c", "d"), ("a", "d"), ("b", "d")], "neighbours first, then most matches"


def test_gps_of_a_moved_and_turned_model_fits() -> None:
    rng = np.random.default_rng(0)
    places = rng.uniform(0, 1e-3, (6, 3))
    gps = {str(i): GpsPosition(48 + a, 2 + b, c) for i, (a, b, c) in enumerate(places)}
    metres = colmap.east_north_up(places + np.array([48, 2, 0]), (48, 2, 0))
    turn = rotation_matrix([math.cos(0.4), 0, math.sin(0.4), 0])
    centers = dict(zip(gps, 0.1 * metres @ turn.T + [3, 4, 5], strict=True))
    assert max(gps_residuals_m(gps, centers).values()) < 1e-6
    assert gps_residuals_m(gps, {"0": centers["0"]}) == {}


GPS = {
    "origin": {},
    "models": [
        {
            "aligned": True,
            "photos": 3,
            "outliers": ["far & <away>.jpg"],
            "rms_horizontal_m": 0.5,
            "rms_vertical_m": 1.0,
            "residuals_m": {"a": [3.0, 4, 12], "b": [0.0, 0, 1], "far & <away>.jpg": [0, 1e5, 0]},
        },
        {"aligned": False, "why": "two photos", "photos": 2},
    ],
}


def test_the_table_of_gps_residuals_begins_with_the_furthest() -> None:
    assert aligned_residuals_m(GPS)["a"] == 13
    models, photos = gps_tables(GPS).values()
    assert models[1:] == [
        ["1", "3", "1", "0.50", "1.00"],
        ["2", "2", "not aligned: two photos", "", ""],
    ]
    assert [row[0] for row in photos[1:]] == ["far & <away>.jpg", "a", "b"]
    assert photos[1][-1] == "far off: not counted"
    assert photos[2][1:] == ["+3.00", "+4.00", "+12.00", ""]


def test_the_plan_leaves_out_what_is_far_off_and_is_valid_xml() -> None:
    centers = {name: np.array(at, float) for name, at in {"a": (0, 0, 0), "b": (10, 5, 0)}.items()}
    drawn = draw_plan(GPS, centers | {"far & <away>.jpg": np.array([5.0, 5, 0])})
    assert drawn is not None
    root = ElementTree.fromstring(drawn)
    marks = list(root.iter("{http://www.w3.org/2000/svg}g"))
    assert len(marks) == 3
    assert float(root.attrib["height"]) < 1000, "the far position does not stretch the plan"
    assert draw_plan({"models": [GPS["models"][1]]}, centers) is None
