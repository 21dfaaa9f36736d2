import numpy as np
import pytest

from reconstruct.datasets import sampling
from reconstruct.datasets.rendering import illuminate, render
from reconstruct.datasets.scene import (
    NO_SURFACE_M,
    Lighting,
    PinholeCamera,
    Quad,
    Scene,
    View,
    back_project,
    look_at,
    project,
)

CAMERA = PinholeCamera(width=80, height=60, fx=100.0, fy=100.0, cx=40.0, cy=30.0)
AHEAD = View(name="ahead", camera=CAMERA, cam_from_world=look_at((0, -5, 1), (0, 0, 1)))
DARK = (0.0, 0.0, 0.0)


def lighting(**changes):
    plain = {"sky": (1.0, 1.0, 1.0), "sun": DARK, "to_sun": (0.0, 0.0, 1.0), "lamp": DARK}
    return Lighting(
        **(plain | {"glow": 0.0, "zenith": DARK, "horizon": DARK, "noise": 1.0} | changes)
    )


def quad(origin, u, v, albedo=200):
    if np.isscalar(albedo):
        albedo = np.full((8, 8, 3), albedo, np.uint8)
    origin, u, v = np.array([origin, u, v], np.float64)
    return Quad(origin=origin, edge_u=u, edge_v=v, albedo=albedo)


def scene(*quads, lamps=()):
    return Scene(quads=quads, lamps=np.array(lamps, np.float64).reshape(-1, 3))


def wall(y, half=1.0, albedo=200):
    """A square wall of 2 half metres that faces -y, its centre at (0, y, 1)."""
    return quad((-half, y, 1 + half), (2 * half, 0, 0), (0, 0, -2 * half), albedo)


def test_a_point_one_metre_to_the_right_and_up_at_five_metres():
    pixels, depth = project(AHEAD, [[1.0, 0.0, 2.0]])
    np.testing.assert_allclose(pixels, [[60.0, 10.0]])  # 100 px / 5 m = 20 px per metre
    np.testing.assert_allclose(depth, [5.0])


def test_no_points_project_to_no_pixels():
    pixels, depth = project(AHEAD, np.zeros((0, 3)))
    assert pixels.shape == (0, 2)
    assert depth.shape == (0,)


def test_back_projection_starts_at_the_centre_of_a_pixel():
    depth = np.zeros((60, 80), np.float32)
    depth[30, 40] = 5.0
    points = back_project(AHEAD, depth)
    np.testing.assert_allclose(points[30, 40], [0.025, 0.0, 0.975], atol=1e-12)
    assert np.isnan(points[0, 0]).all()


def test_wall_covers_exactly_its_pixels():
    rendered = render(illuminate(scene(wall(0.0)), lighting(sky=(1 / 0.7,) * 3)), AHEAD)
    # 2 m at 20 px per metre around the centre (40, 30): columns 20..59, rows 10..49.
    expected = np.zeros((60, 80), bool)
    expected[10:50, 20:60] = True
    np.testing.assert_array_equal(rendered.depth != NO_SURFACE_M, expected)
    np.testing.assert_array_equal(rendered.image[..., 0], expected * 200)
    np.testing.assert_allclose(rendered.depth[expected], 5.0, rtol=1e-6)


def test_empty_scene_is_sky_without_depth():
    rendered = render(illuminate(scene(), lighting(horizon=(0.2, 0.4, 0.6))), AHEAD)
    assert (rendered.depth == NO_SURFACE_M).all()
    np.testing.assert_array_equal(rendered.image[-1, 0], [51, 102, 153])


def test_nearer_surface_hides_whatever_the_order():
    for quads in ((wall(0.0), wall(-1.0, 0.5, 90)), (wall(-1.0, 0.5, 90), wall(0.0))):
        depth = render(illuminate(scene(*quads), lighting()), AHEAD).depth
        assert depth[30, 40] == pytest.approx(4.0)
        assert depth[12, 22] == pytest.approx(5.0)


def test_averted_side_is_not_seen():
    averted = quad((1, 0, 2), (-2, 0, 0), (0, 0, -2))
    assert not render(illuminate(scene(averted), lighting()), AHEAD).depth.any()


def test_ground_that_reaches_behind_the_camera():
    ground = quad((-50, 50, 0), (100, 0, 0), (0, -100, 0))
    depth = render(illuminate(scene(ground), lighting()), AHEAD).depth
    assert not depth[:30].any()
    rows = np.arange(32, 60)  # height 1 m: z = f / (v - cy)
    np.testing.assert_allclose(depth[32:, 7], 100.0 / (rows + 0.5 - 30.0), rtol=1e-6)


@pytest.mark.parametrize("turn_deg", [0.0, 35.0, 60.0])
def test_texture_lands_where_its_points_project(turn_deg):
    """Centroids of blobs, far below a pixel: also through the levels of the mip-map pyramid."""
    angle = np.radians(turn_deg)
    u = 1.2 * np.array([np.cos(angle), np.sin(angle), 0.0])
    texels = (np.arange(600) + 0.5) / 600
    for s, t in ((0.5, 0.5), (0.31, 0.68), (0.72, 0.27)):
        spread = (texels[None] - s) ** 2 + (texels[:, None] - t) ** 2
        blob = np.repeat(np.uint8(250 * np.exp(-spread / 2 / 0.06**2))[..., None], 3, axis=2)
        surface = quad((0, 0, 1.6) - u / 2, u, (0, 0, -1.2), blob)
        for distance in (1.6, 4.0):
            view = View(
                name="",
                camera=PinholeCamera(width=80, height=60, fx=70.0, fy=70.0, cx=41.3, cy=29.2),
                cam_from_world=look_at((0.3, -distance, 1.3), (0, 0, 1)),
            )
            weight = render(illuminate(scene(surface), lighting()), view).image[..., 0] ** 2.0
            rows, columns = np.indices(weight.shape) + 0.5
            centroid = np.array([(weight * columns).sum(), (weight * rows).sum()]) / weight.sum()
            # Perspective shifts the centroid itself: compare with that of the exact blob.
            grid = np.stack(np.meshgrid(texels, texels), axis=-1)[::4, ::4].reshape(-1, 2)
            pixels, depth = project(view, surface.points(grid[:, 0], grid[:, 1]))
            exact = blob[::4, ::4, 0].reshape(-1).astype(float) ** 2 / depth**3
            expected = (pixels * exact[:, None]).sum(axis=0) / exact.sum()
            np.testing.assert_allclose(centroid, expected, atol=0.04)


def test_sun_gives_lambert_cosine_and_shadow():
    ground = quad((-4, 4, 0), (8, 0, 0), (0, -8, 0))
    roof_top, roof_bottom = ((-1, 1, 1), (2, 0, 0), (0, -2, 0)), ((-1, -1, 1), (2, 0, 0), (0, 2, 0))
    sunny = lighting(sky=DARK, sun=(1.0, 1.0, 1.0), to_sun=(0.0, 0.0, 1.0))
    lit = illuminate(scene(ground, quad(*roof_top), quad(*roof_bottom)), sunny)
    floor, top, bottom = (pyramid[0][..., 0] for pyramid in lit.pyramids)
    assert floor[0, 0] == 200
    assert floor[3:5, 3:5].max() == 0
    assert (top == 200).all()
    assert (bottom == 0).all()
    slanting = illuminate(scene(ground), lighting(sky=DARK, sun=(1, 1, 1), to_sun=(0, 3**0.5, 1)))
    assert slanting.pyramids[0][0][4, 4, 0] == pytest.approx(200 * 0.5 ** (1 / 2.2), abs=1)


def test_lamp_fades_with_distance_and_shines_out_of_its_lantern():
    ground = quad((-4, 4, 0), (8, 0, 0), (0, -8, 0))
    glass = quad((-0.2, -0.2, 1.8), (0.4, 0, 0), (0, 0.4, 0))  # faces down, below the lamp
    light = lighting(sky=DARK, lamp=(1.0, 1.0, 1.0))
    floor = illuminate(scene(ground, glass, lamps=[(0, 0, 2)]), light).pyramids[0][0][..., 0]
    assert floor[4, 4] > 90 > 40 > floor[0, 0] > 0


def test_glow_is_seen_only_when_lights_are_on():
    glow = np.full((8, 8, 3), 100, np.uint8)
    window = wall(0.0)
    window = Quad(
        origin=window.origin, edge_u=window.edge_u, edge_v=window.edge_v,
        albedo=window.albedo, glow=glow,
    )  # fmt: skip
    for share, expected in ((0.0, 0), (0.5, 50), (1.0, 100)):
        lit = illuminate(scene(window), lighting(sky=DARK, glow=share))
        assert render(lit, AHEAD).image[30, 40, 0] == expected


def test_noise_comes_from_the_generator_only():
    lit = illuminate(scene(wall(0.0, albedo=100)), lighting(noise=2.0))
    clean = render(lit, AHEAD).image[12:48, 22:58].astype(float)
    assert clean.std() < 0.6
    first, again, other = (render(lit, AHEAD, np.random.default_rng(s)).image for s in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()
    assert 2.0 < first[12:48, 22:58].std() < 3.5


def test_texels_lie_between_those_around_whatever_the_version_of_opencv(monkeypatch):
    texture = np.zeros((2, 3, 3), np.uint8)
    texture[:, 1] = [100, 200, 40]
    x, y = np.array([[0.51, 2.0, -5.0]], np.float32), np.array([[0.0, 1.0, 9.0]], np.float32)
    expected = [[[51, 102, 20], [0, 0, 0], [0, 0, 0]]]
    for exact in {sampling.EXACT_REMAP, False}:
        monkeypatch.setattr(sampling, "EXACT_REMAP", exact)
        np.testing.assert_array_equal(sampling.bilinear(texture, x, y), expected)
