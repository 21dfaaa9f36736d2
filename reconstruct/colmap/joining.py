"""Two models aligned by photos that are in both, and two models merged into one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pycolmap
from numpy.typing import NDArray

from reconstruct.colmap.linking import Links
from reconstruct.colmap.models import Reconstruction, model_poses, points_by_id
from reconstruct.colmap.placing import SAME_KEYPOINT_PX, transform
from reconstruct.colmap.tracks import Tracks
from reconstruct.geometry import projection_center
from reconstruct.similarity import Agreement, agreeing_similarity


@dataclass(frozen=True, slots=True, eq=False)
class Overlap:
    """What two models have in common.

    Attributes:
        shared: Sorted names of the photos that have a pose in both.
        agreeing: Those of them whose two poses one similarity brings together.
        similarity: target_from_source; None if no two photos agree.
    """

    shared: list[str]
    agreeing: list[str]
    similarity: Agreement | None


def find_overlap(source: Reconstruction, target: Reconstruction) -> Overlap:
    """How ``source`` lies in ``target``, by the photos that both have."""
    poses, expected = model_poses(source), model_poses(target)
    shared = sorted(set(poses) & set(expected))
    found = agreeing_similarity(
        np.array([poses[name] for name in shared]).reshape(-1, 3, 4),
        np.array([expected[name] for name in shared]).reshape(-1, 3, 4),
        _depths(target, shared),
    )
    agreeing = [] if found is None else [shared[i] for i in np.flatnonzero(found.agreeing)]
    return Overlap(shared, agreeing, found)


def _depths(model: Reconstruction, names: list[str]) -> NDArray[np.float64]:
    """(N,) median distance from a photo to the points that it sees, 0 if it sees none."""
    tracks, poses = Tracks(model), model_poses(model)
    depths = []
    for name in names:
        ids = tracks.points(name)
        points = tracks.positions(ids[ids >= 0])
        away = np.linalg.norm(points - projection_center(poses[name]), axis=1)
        depths.append(float(np.median(away)) if len(away) else 0.0)
    return np.array(depths)


def merge_models(
    source: Reconstruction,
    target: Reconstruction,
    similarity: Agreement,
    links: Links | None = None,
) -> Reconstruction:
    """One model of two: photos by name, the poses of shared ones those of ``target``.

    A point of ``source`` that a shared photo sees in the same keypoint as a point of ``target``, or
    in a keypoint that is linked with one of such a point, is that point. Cameras that took the same
    shared photos are one, and so are equal ones.

    Args:
        source: The model that is moved onto the other.
        target: The model that stays where it is.
        similarity: target_from_source.
        links: Keypoints matched between photos of ``source`` and photos of ``target``.

    Returns:
        A new model. Adjust it next: nothing has moved to where both agree.
    """
    moved = pycolmap.Reconstruction(source)
    transform(moved, similarity.scale, similarity.rotation, similarity.translation)
    parts = (target, moved)
    tracks = tuple(Tracks(part) for part in parts)
    owner = {name: side for side in (1, 0) for name in tracks[side].names}
    numbers, keypoints = {}, {}
    for name, side in owner.items():
        own = tracks[side].keypoints(name)
        keypoints[name], numbers[name] = own, np.arange(len(own))
        if side == 0 and name in set(tracks[1].names):
            keypoints[name], numbers[name] = _joint_keypoints(
                own, tracks[1].keypoints(name), tracks[1].points(name)
            )
    merged = pycolmap.Reconstruction()
    cameras = _joint_cameras(target, moved, merged)
    ids = {name: number for number, name in enumerate(sorted(owner), 1)}
    for name, image_id in ids.items():
        part = parts[owner[name]]
        known = part.find_image_with_name(name)
        assert known is not None
        image = pycolmap.Image(
            name=name,
            keypoints=keypoints[name],
            camera_id=cameras[owner[name], known.camera_id],
            image_id=image_id,
        )
        merged.add_image_with_trivial_frame(image, known.cam_from_world())
    linked = _linked(links or {}, ids)
    _add_points(merged, ids, tracks, parts, numbers, linked)
    return merged


def _joint_keypoints(
    own: NDArray[np.float64], other: NDArray[np.float64], points: NDArray[np.int64]
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Keypoints of a photo in both models, and the number there of each of the other model's.

    Keypoints of the other model that see a point, but differ from the keypoint of the same number,
    are appended; those that see none have number -1.
    """
    numbers = np.full(len(other), -1)
    both = min(len(own), len(other))
    same = np.linalg.norm(own[:both] - other[:both], axis=1) <= SAME_KEYPOINT_PX
    numbers[:both][same] = np.flatnonzero(same)
    new = np.flatnonzero((points >= 0) & (numbers < 0))
    numbers[new] = len(own) + np.arange(len(new))
    return np.concatenate([own, other[new]]), numbers


CameraKey = tuple[str, int, int, bytes]
"""Model, width, height and parameters of a camera, to the last bit."""


def camera_key(camera: pycolmap.Camera) -> CameraKey:
    """What equal cameras have in common."""
    return camera.model.name, camera.width, camera.height, camera.params.tobytes()


def camera_keys(model: Reconstruction) -> set[CameraKey]:
    """The keys of a model's cameras."""
    return {camera_key(camera) for camera in model.cameras.values()}


def equal_cameras(models: Sequence[Reconstruction]) -> set[CameraKey]:
    """Cameras that several models have, equal to the last bit: they were given, not estimated."""
    found = [camera_keys(model) for model in models]
    return {key for i, own in enumerate(found) for other in found[:i] for key in own & other}


def _joint_cameras(
    target: Reconstruction, moved: Reconstruction, merged: Reconstruction
) -> dict[tuple[int, int], int]:
    """(side, camera id there) -> camera id in the merged model, to which cameras are added."""
    in_target = {target.images[i].name: target.images[i] for i in target.reg_image_ids()}
    partners: dict[int, set[int]] = {}
    for image_id in moved.reg_image_ids():
        image = moved.images[image_id]
        if image.name in in_target:
            partners.setdefault(image.camera_id, set()).add(in_target[image.name].camera_id)
    ids: dict[tuple[int, int], int] = {}
    equal: dict[CameraKey, int] = {}
    for side, part in enumerate((target, moved)):
        used = {part.images[i].camera_id for i in part.reg_image_ids()}
        for camera_id in sorted(used):
            key = camera_key(part.cameras[camera_id])
            found = partners.get(camera_id, set()) if side == 1 else set()
            if len(found) == 1:
                ids[side, camera_id] = ids[0, next(iter(found))]
            elif side == 1 and key in equal:
                ids[side, camera_id] = equal[key]
            else:
                camera = pycolmap.Camera(part.cameras[camera_id].todict())
                camera.camera_id = ids[side, camera_id] = len(merged.cameras) + 1
                merged.add_camera_with_trivial_rig(camera)
                equal.setdefault(key, camera.camera_id)
    return ids


_Observation = tuple[int, int]
"""Image id and keypoint number in the merged model."""


def _linked(links: Links, ids: dict[str, int]) -> dict[_Observation, list[_Observation]]:
    """Keypoint -> those that it is linked with, both ways. A linked photo is in one model only, so
    its keypoints keep their numbers."""
    linked: dict[_Observation, list[_Observation]] = {}
    for (a, b), matches in sorted(links.items()):
        for i, j in matches.tolist():
            first, second = (ids[a], i), (ids[b], j)
            linked.setdefault(first, []).append(second)
            linked.setdefault(second, []).append(first)
    return linked


def _add_points(
    merged: Reconstruction,
    ids: dict[str, int],
    tracks: tuple[Tracks, ...],
    parts: tuple[Reconstruction, ...],
    numbers: dict[str, NDArray[np.int64]],
    linked: dict[_Observation, list[_Observation]],
) -> None:
    """Give the merged model the points of both, and those of both that are one once."""
    taken: dict[_Observation, int] = {}  # -> row of its point
    rows: list[tuple[NDArray[np.float64], NDArray[np.uint8], dict[int, int]]] = []

    def observe(row: int, element: _Observation) -> None:
        if element[0] not in rows[row][2]:  # one keypoint a photo: that which came first
            rows[row][2][element[0]] = element[1]
            taken[element] = row

    for side, (part, seen) in enumerate(zip(parts, tracks, strict=True)):
        places = points_by_id(part)
        observations: dict[int, list[_Observation]] = {}
        for name in seen.names:
            points = seen.points(name)
            own = np.arange(len(points)) if side == 0 else numbers[name]
            for index in np.flatnonzero((points >= 0) & (own >= 0)).tolist():
                element = (ids[name], int(own[index]))
                observations.setdefault(int(points[index]), []).append(element)
        for point_id, elements in sorted(observations.items()):
            same = [e for element in elements for e in (element, *linked.get(element, ()))]
            known = Counter(taken[element] for element in same if element in taken)
            if known and side == 1:
                row = known.most_common(1)[0][0]
            else:
                row = len(rows)
                rows.append((places[point_id], part.points3D[point_id].color, {}))
            for element in elements:
                if element not in taken:
                    observe(row, element)
    for element, others in sorted(linked.items()):  # keypoints that saw no point so far
        for other in others:
            if element in taken and other not in taken:
                observe(taken[element], other)
    for xyz, color, seen_in in rows:
        if len(seen_in) >= 2:
            track = pycolmap.Track()
            for image_id, index in seen_in.items():
                track.add_element(image_id, index)
            merged.add_point3D(xyz, track, color)
