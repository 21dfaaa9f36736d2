"""Search in maps: known moves under known affinities, and where nothing can be found."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from builders import AFFINITIES, around_center, grid, photo

from reconstruct.images import read_image, to_grey
from reconstruct.refinement import RefineConfig, align_pair, build_pyramid
from reconstruct.refinement.alignment import Warp
from reconstruct.refinement.search import search
from reconstruct.stages.pyramids import pyramid_of
from reconstruct.types import ImageArray

CPU = torch.device("cpu")
MAPS = RefineConfig(min_map_similarity=0.1)


def maps(shift: float) -> torch.Tensor:
    """(8, 64, 64) waves of 12 to 31 cells, moved along x."""
    x = torch.arange(64) + 0.5 - shift
    y = torch.arange(64) + 0.5
    waves = [
        torch.cos(2 * np.pi * (x[None] * np.cos(k) + y[:, None] * np.sin(k)) / (10 + 2.6 * k))
        for k in range(1, 9)
    ]
    return torch.stack(waves)


@pytest.mark.parametrize("shift", [0.0, 1.3, -2.4])
def test_a_shift_is_found(shift: float) -> None:
    template, source = (maps(0.0),), (maps(shift),)
    at = torch.tensor([[30.0, 31.0], [33.5, 30.2]])
    found = search(template, at, source, Warp(center=at, affinity=torch.eye(2).expand(2, 2, 2)))
    torch.testing.assert_close(
        found.center - at, torch.tensor([[shift, 0.0]] * 2), atol=0.1, rtol=0
    )
    assert found.similarity.min() > 0.9


def test_what_lies_beyond_the_search_is_not_found() -> None:
    at = torch.tensor([[32.0, 32.0]])
    warp = Warp(center=at + 9, affinity=torch.eye(2)[None])
    flat = torch.ones(8, 64, 64)
    ramp = flat * torch.linspace(0, 1, 64)
    assert search((ramp,), at, (ramp,), warp).similarity.item() == -1
    assert search((ramp,), at, (torch.zeros(8, 64, 64),), warp).similarity.item() <= 0


def blind_to_inversion(image: ImageArray) -> torch.Tensor:
    """(8, H // 2, W // 2) of how far a grey value is from the middle."""
    away = np.abs(image[..., 0].astype(np.float32) - 127.5) / 127.5
    cells = torch.from_numpy(away[::2, ::2] + away[1::2, ::2] + away[::2, 1::2] + away[1::2, 1::2])
    waves = [turn(k * cells / 2) for k in (1, 2, 3, 4) for turn in (torch.cos, torch.sin)]
    return (127 * torch.stack(waves) / 2).round().to(torch.int8)


@pytest.mark.parametrize("name", AFFINITIES)
def test_patches_of_other_light_are_found(name: str) -> None:
    affinity = AFFINITIES[name]
    shift = around_center(affinity) + np.array([0.3, -0.4])
    images = photo(np.eye(2), np.zeros(2)), 255 - photo(affinity, shift)
    truth0 = grid(90)
    truth1 = truth0 @ affinity.T + shift
    noise = np.random.default_rng(1).uniform(-5, 5, truth1.shape)
    rows = np.repeat(np.arange(len(truth0), dtype=np.uint32)[:, None], 2, axis=1)
    pyramids = [build_pyramid(image, None, CPU, describe=blind_to_inversion) for image in images]
    arguments = (*pyramids, truth0, truth1 + noise, rows)
    shape = np.tile(affinity, (len(rows), 1, 1))
    assert align_pair(*arguments, RefineConfig(), shape).aligned.mean() < 0.1
    found = align_pair(*arguments, MAPS, shape)
    error = np.linalg.norm(found.displacement + noise, axis=1)[found.aligned]
    assert found.aligned.mean() > 0.8
    assert np.median(error) < 0.8
    assert np.linalg.det(found.covariance[found.aligned]).min() > 0


def test_settings_without_maps_are_what_they_were() -> None:
    assert not {"min_map_similarity", "map_sigma_px"} & RefineConfig().identity().keys()
    assert {"min_map_similarity", "map_sigma_px"} <= MAPS.identity().keys()


@pytest.mark.real
def test_day_is_found_by_night(shared_data: Path) -> None:
    """Photos of a webcam: what lies somewhere by day lies there by night."""
    folder = shared_data / "daynight" / "800x531"
    photos = [read_image(sorted(folder.glob(f"{light}-*.jpg"))[0]) for light in ("day", "night")]
    pyramids = [pyramid_of(photo, MAPS, CPU) for photo in photos]
    corners = cv2.goodFeaturesToTrack(to_grey(photos[1]), 400, 0.01, 8, blockSize=5)[:, 0] + 0.5
    off = np.random.default_rng(0).uniform(-5, 5, corners.shape)
    rows = np.repeat(np.arange(len(corners), dtype=np.uint32)[:, None], 2, axis=1)
    shape = np.tile(np.eye(2), (len(rows), 1, 1))
    exact = []
    for config in (RefineConfig(), MAPS):
        found = align_pair(*pyramids, corners, corners + off, rows, config, shape)
        error = np.linalg.norm(found.displacement + off, axis=1)
        exact.append((found.aligned & (error < 2)).mean())
    assert exact[0] < 0.05
    assert exact[1] > 0.2
