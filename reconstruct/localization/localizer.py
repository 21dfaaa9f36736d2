"""One photo against a finished map: where was it taken?

localizer = Localizer("out")                 # a folder that `reconstruct.run` mapped
estimate = localizer("photo.jpg", camera)    # PoseEstimate
left, right = localizer.frame(["left.jpg", "right.jpg"], cameras, cams_from_rig)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from reconstruct import colmap, features, matching
from reconstruct.config import Section
from reconstruct.datasets.loading import DatasetConfig, load_dataset
from reconstruct.errors import DataError, UsageError
from reconstruct.features.compaction import compact, read_basis
from reconstruct.images import decode_image, exif_orientation, read_image_bytes
from reconstruct.localization.frame import localize_frame
from reconstruct.localization.pose import LocalizeConfig
from reconstruct.localization.query import MatchedQuery, QueryLocalizer
from reconstruct.localization.refine_query import RefineQueryConfig
from reconstruct.matching.config import MatchConfig, default_match
from reconstruct.orientation import AS_STORED, stored_features, upright
from reconstruct.refinement.settings import RefineConfig
from reconstruct.retrieval.describers import create_describer
from reconstruct.retrieval.index import GlobalIndex, read_index
from reconstruct.retrieval.nearest import nearest
from reconstruct.stages.extract_settings import ExtractConfig
from reconstruct.stages.outcome import Run, read_settings
from reconstruct.stages.pair_settings import PairConfig, QueryRetrieval
from reconstruct.stages.verify import VerifyConfig
from reconstruct.storage.features import FeatureStore
from reconstruct.types import FloatArray, ImageArray, Intrinsics, LocalFeatures, PoseEstimate
from reconstruct.workspace import Workspace

NEIGHBORS = 20
"""Images of the map a photo is matched with, where the run does not say how queries are paired."""

NO_PHOTOS = (
    "localize.refine compares a query with the photos of the map: give their folder as `photos`, "
    "or leave the refinement out with config=LocalizeConfig()"
)


class _MapSettings(Section):
    """The sections of a run's settings that a query depends on."""

    seed: int = 0
    dataset: DatasetConfig
    extract: ExtractConfig
    pair: PairConfig | None = None
    match: MatchConfig = default_match()
    verify: VerifyConfig = VerifyConfig.model_validate({})
    refine: RefineConfig | None = None
    localize: LocalizeConfig | None = None

    def how_to_localize(self) -> LocalizeConfig:
        """Section ``localize`` of the run; without one the defaults, with refinement if the map was
        refined."""
        if self.localize is not None:
            return self.localize
        refine = None if self.refine is None else RefineQueryConfig.model_validate({})
        return LocalizeConfig(refine=refine)

    def neighbors(self) -> int | None:
        """Images of the map for a query, by global descriptors; None: all."""
        if self.extract.global_ is None:
            return None
        if self.localize is not None and self.pair is not None:
            queries = self.pair.queries
            return queries.neighbors if isinstance(queries, QueryRetrieval) else None
        return NEIGHBORS


class Localizer:
    """A map with its extractor, loaded once for many photos.

    A photo is treated exactly as a query of the run: same settings, same pose. Those that cameras
    mounted together took at once are localized together by `frame`.

    Args:
        run_or_output: A `Run` or its output folder; it needs ``features/`` and ``sparse/``.
        neighbors: How many images of the map a photo is matched with, by global descriptors
            (``extract.global``); None: as the run pairs its queries, and 20 if it has none.
        config: Settings of the pose estimation; None: those of the run. If it localized nothing,
            the defaults, with ``refine`` if its map was refined.
        photos: Folder of the map's photos, which only ``config.refine`` reads; None: where the
            run read them.
        device: auto, cpu, cuda or cuda:N.

    Raises:
        UsageError: The folder holds no map, or those photos are not there.
    """

    def __init__(
        self,
        run_or_output: Run | Path | str,
        *,
        neighbors: int | None = None,
        config: LocalizeConfig | None = None,
        photos: Path | str | None = None,
        device: str = "auto",
    ) -> None:
        output = run_or_output.output if isinstance(run_or_output, Run) else Path(run_or_output)
        workspace = Workspace(output)
        if not workspace.sparse.is_dir() or not workspace.config.is_file():
            raise UsageError(f"{output}: no mapped model (sparse/) here; run the pipeline first")
        colmap.set_verbosity(False)
        settings = read_settings(workspace.config, _MapSettings)
        self.config = config or settings.how_to_localize()
        self.neighbors = settings.neighbors() if neighbors is None else neighbors
        self._matcher = matching.create(settings.match, device)
        self._store = FeatureStore(workspace.features)
        model = colmap.read_model(workspace.sparse)
        tracks = colmap.Tracks(model)
        self._local = settings.extract.local
        self._turns = settings.extract.orientation != "stored"
        self._extractor = features.create(self._local, device)
        stored_as = settings.extract.compact
        basis = stored_as.basis_path(workspace.features)
        self._encoding = stored_as.encoding
        self._basis = None if basis is None else read_basis(basis)
        stored = self._store.fingerprints()
        self._names = [name for name in tracks.names if name in stored]
        self._describer = None
        self._index: GlobalIndex | None = None
        if settings.extract.global_ is not None:
            self._describer = create_describer(settings.extract.global_, self._extractor, device)
            self._index = read_index(workspace.global_ / "index.h5")
        root = None
        if self.config.refine is not None:
            root = _photo_root(settings, workspace) if photos is None else Path(photos)
            _check_photos(root, self._names)
        self._localize = QueryLocalizer(
            self.config,
            settings.verify,
            tracks,
            colmap.model_cameras(model),
            photos=root,
            device=device,
            seed=settings.seed,
        )

    def __call__(
        self, image: ImageArray | Path | str, camera: colmap.Camera | Intrinsics | None = None
    ) -> PoseEstimate:
        """The pose of a photo in the map's frame, or why there is none.

        Args:
            image: (H, W, 3) uint8 RGB, or a file.
            camera: Its intrinsics (pycolmap.Camera or `Intrinsics`); None: a file's are guessed
                from EXIF, and the focal length is estimated.

        Raises:
            ImageError: The file cannot be read.
            UsageError: An array without a camera, or a camera of another size.
        """
        return self._localize(self._query(image, camera))

    def frame(
        self,
        images: Sequence[ImageArray | Path | str],
        cameras: Sequence[colmap.Camera | Intrinsics],
        cams_from_rig: Sequence[NDArray[np.float64]],
    ) -> list[PoseEstimate]:
        """The poses of photos that cameras mounted together took at once, by the matches of all.

        They are found as one pose, so that a photo that shows little has one too.

        Args:
            images: The photos, as for a single one.
            cameras: The intrinsics of each.
            cams_from_rig: (3, 4) pose in the rig of each photo's camera, in the unit of the map;
                `colmap.Rigs.cam_from_rig` reads those of a rig configuration.

        Raises:
            ImageError: A file cannot be read.
            UsageError: A camera is of another size, there are not as many cameras and poses as
                photos, or the settings are for single photos (``clusters``, ``refine_focal``).
        """
        if not len(images) == len(cameras) == len(cams_from_rig) > 0:
            raise UsageError(
                f"a frame needs a camera and a pose in the rig for each photo, got {len(images)} "
                f"photos, {len(cameras)} cameras and {len(cams_from_rig)} poses"
            )
        if self.config.clusters or self.config.refine_focal:
            raise UsageError("photos of a frame: leave `clusters` and `refine_focal` out")
        queries = [self._query(*photo) for photo in zip(images, cameras, strict=True)]
        return localize_frame(self._localize, queries, cams_from_rig)

    def _query(
        self, image: ImageArray | Path | str, camera: colmap.Camera | Intrinsics | None
    ) -> MatchedQuery:
        """A photo, matched with images of the map."""
        orientation = AS_STORED
        if isinstance(image, np.ndarray):
            pixels = image
        else:
            data = read_image_bytes(image)
            pixels = decode_image(data, str(image))
            orientation = exif_orientation(data) if self._turns else AS_STORED
        size = (pixels.shape[1], pixels.shape[0])
        local, descriptor = self._describe(upright(pixels, orientation))
        local = stored_features(local, size, orientation)
        others = self._candidates(descriptor)
        keypoints = {name: self._store.keypoints(name) for name in others}
        return MatchedQuery(
            name="query" if isinstance(image, np.ndarray) else str(image),
            image=pixels,
            keypoints=local.keypoints,
            camera=_as_camera(image, camera, size),
            camera_known=camera is not None,
            matches=self._match_with(local, others),
            map_keypoints=keypoints,
            input_scale=features.input_scale(self._local, local.image_size),
        )

    def _match_with(
        self, local: LocalFeatures, names: Sequence[str]
    ) -> dict[str, NDArray[np.uint32]]:
        """Matches with images of the map, the query's keypoint first."""
        # As those of the map are stored, which is what the map's own matches came from.
        stored = compact(local.descriptors, self._basis, self._encoding)
        query = self._matcher.prepare(replace(local, descriptors=stored))
        matches = {}
        for name in names:
            other = self._matcher.prepare(self._store.load(name, self._matcher.reads))
            matches[name] = self._matcher.match(query, other).indices
        return matches

    def _describe(self, pixels: ImageArray) -> tuple[LocalFeatures, FloatArray | None]:
        prepared = self._extractor.prepare(pixels)
        if self._describer is None or self._index is None:
            return self._extractor.extract([prepared])[0], None
        local, rows = self._describer.extract([prepared], [self._describer.prepare(pixels)])
        return local[0], self._index.aggregation(rows[0])

    def _candidates(self, descriptor: FloatArray | None) -> list[str]:
        if descriptor is None or self._index is None or self.neighbors is None:
            return self._names
        known = set(self._index.names)
        names = [name for name in self._names if name in known]
        indices, _ = nearest(descriptor[None], self._index.select(names), self.neighbors)
        return sorted(names[i] for i in indices[0])


def localize(
    run_or_output: Run | Path | str,
    image: ImageArray | Path | str,
    camera: colmap.Camera | Intrinsics | None = None,
    *,
    neighbors: int | None = None,
    photos: Path | str | None = None,
    device: str = "auto",
) -> PoseEstimate:
    """`Localizer` for a single photo; it takes the same arguments."""
    localizer = Localizer(run_or_output, neighbors=neighbors, photos=photos, device=device)
    return localizer(image, camera)


def _photo_root(settings: _MapSettings, workspace: Workspace) -> Path:
    try:
        return load_dataset(settings.dataset, workspace.dataset).root
    except (UsageError, DataError) as error:
        raise UsageError(f"{workspace.config}: {error}; {NO_PHOTOS}") from error


def _check_photos(root: Path, names: list[str]) -> None:
    for name in names:
        if not (root / name).is_file():
            raise UsageError(f"{root / name}: this photo of the map is not there; {NO_PHOTOS}")


def _as_camera(
    image: ImageArray | Path | str,
    camera: colmap.Camera | Intrinsics | None,
    size: tuple[int, int],
) -> colmap.Camera:
    if camera is None:
        if isinstance(image, np.ndarray):
            raise UsageError("camera: required with an array of pixels, which has no EXIF data")
        return colmap.guess_camera(Path(image), "SIMPLE_RADIAL")
    if isinstance(camera, Intrinsics):
        camera = colmap.make_camera(camera.model, camera.params, camera.size)
    if (camera.width, camera.height) != size:
        raise UsageError(
            f"camera: for {camera.width} x {camera.height} pixels, but the image is "
            f"{size[0]} x {size[1]}; resize the image or the camera"
        )
    return camera
