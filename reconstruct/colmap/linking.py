"""Two models without photos in common, laid over each other by matches between their photos."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from reconstruct.colmap.models import Reconstruction
from reconstruct.colmap.tracks import Tracks
from reconstruct.point_similarity import Sightings, similarity_from_sightings
from reconstruct.similarity import Agreement

Links = Mapping[tuple[str, str], NDArray[np.uint32]]
"""(photo of one model, photo of the other) -> (M, 2) numbers of matched keypoints."""


@dataclass(frozen=True, slots=True, eq=False)
class LinkedOverlap:
    """How two models lie by matches between their photos.

    Attributes:
        matches: How many matches have a 3D point on either side.
        agreeing: The links that one similarity explains; pairs without any are left out.
        photos: Sorted names of the photos that stand in them, of the source and of the target.
        points: How many points of the source are a point of the target by them.
        similarity: target_from_source; None if there is none.
    """

    matches: int
    agreeing: Links
    photos: tuple[list[str], list[str]]
    points: int
    similarity: Agreement | None

    @property
    def agreeing_matches(self) -> int:
        """How many matches agree."""
        return sum(map(len, self.agreeing.values()))


def find_linked_overlap(
    source: Reconstruction,
    target: Reconstruction,
    links: Links,
    max_error_px: float,
    *,
    seed: int = 0,
) -> LinkedOverlap:
    """How ``source`` lies in ``target``, by verified matches between their photos.

    Args:
        source: The model that would be moved.
        target: The model that stays.
        links: The matches, a photo of ``source`` first.
        max_error_px: A match agrees if the points of both keypoints are seen so near to the other.
        seed: Of RANSAC.
    """
    pairs = [pair for pair in sorted(links) if len(links[pair])]
    if not pairs:
        return LinkedOverlap(0, {}, ([], []), 0, None)
    sides = [
        _sightings(model, [(pair[side], links[pair][:, side]) for pair in pairs])
        for side, model in enumerate((source, target))
    ]
    ids = [side[1] for side in sides]
    founded = (ids[0] >= 0) | (ids[1] >= 0)
    found = similarity_from_sightings(sides[0][0], sides[1][0], max_error_px, seed=seed)
    if found is None:
        return LinkedOverlap(int(founded.sum()), {}, ([], []), 0, None)
    ends = np.cumsum([len(links[pair]) for pair in pairs])[:-1]
    agreeing = {
        pair: links[pair][kept]
        for pair, kept in zip(pairs, np.split(found.agreeing, ends), strict=True)
        if kept.any()
    }
    photos = (sorted({a for a, _ in agreeing}), sorted({b for _, b in agreeing}))
    same = found.agreeing & (ids[0] >= 0) & (ids[1] >= 0)
    points = len(np.unique(ids[0][same]))
    return LinkedOverlap(int(founded.sum()), agreeing, photos, points, found)


def _sightings(
    model: Reconstruction, keypoints: list[tuple[str, NDArray[np.uint32]]]
) -> tuple[Sightings, NDArray[np.int64]]:
    """What keypoints of photos see, one list after the other, and the ids of the points (-1)."""
    tracks = Tracks(model)
    points, rays, poses, focals, ids = [], [], [], [], []
    for name, numbers in keypoints:
        image = model.find_image_with_name(name)
        assert image is not None  # links are between registered photos
        camera = model.cameras[image.camera_id]
        own = tracks.points(name)[numbers]
        places = np.full((len(own), 3), np.nan)
        places[own >= 0] = tracks.positions(own[own >= 0])
        points.append(places)
        rays.append(np.asarray(camera.cam_from_img(tracks.keypoints(name)[numbers])))
        poses.append(np.broadcast_to(image.cam_from_world().matrix(), (len(own), 3, 4)))
        focals.append(np.full(len(own), camera.mean_focal_length()))
        ids.append(own)
    sightings = Sightings(
        points=np.concatenate(points),
        rays=np.concatenate(rays),
        poses=np.concatenate(poses),
        focal_px=np.concatenate(focals),
    )
    return sightings, np.concatenate(ids)
