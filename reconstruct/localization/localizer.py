"""One photo against a finished map: where was it taken?

localizer = Localizer("out")                 # a folder that `reconstruct.run` mapped
found = localizer("photo.jpg", camera)       # PoseEstimate
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import yaml

from reconstruct import colmap, features
from reconstruct.config import Section, validate
from reconstruct.datasets.loading import DatasetConfig, load_dataset
from reconstruct.errors import DataError, UsageError
from reconstruct.features.compaction import compact, read_basis
from reconstruct.images import read_image
from reconstruct.localization.localize import LocalizeConfig, localize_matches
from reconstruct.localization.refine_query import QueryRefiner
from reconstruct.matching.config import MatchConfig, default_match
from reconstruct.retrieval.describers import create_describer
from reconstruct.retrieval.index import GlobalIndex, read_index
from reconstruct.retrieval.nearest import nearest
from reconstruct.stages.extract import ExtractConfig
from reconstruct.stages.match import as_tensor, match_images
from reconstruct.stages.outcome import Run
from reconstruct.storage.features import FeatureStore
from reconstruct.torch_device import resolve_device
from reconstruct.types import FloatArray, ImageArray, Intrinsics, LocalFeatures, PoseEstimate
from reconstruct.workspace import Workspace

NO_PHOTOS = (
    "localize.refine compares a query with the photos of the map: give their folder as `photos`, "
    "or leave the refinement out with config=LocalizeConfig()"
)


class _MapSettings(Section):
    """The sections of a run's settings that a query depends on."""

    seed: int = 0
    dataset: DatasetConfig
    extract: ExtractConfig
    match: MatchConfig | None = None
    localize: LocalizeConfig | None = None


class Localizer:
    """A map with its extractor, loaded once for many photos.

    run_or_output: a `Run` or its output folder; it needs ``features/`` and ``sparse/``.
    neighbors: how many images of the map a photo is matched with, by global descriptors where the
    run had them (``extract.global``); without them it is matched with all.
    config: settings of the pose estimation; None: those of the run, or the defaults.
    photos: folder of the map's photos, which only ``config.refine`` reads; None: where the run
    found them.

    Raises UsageError if the folder holds no map, or if those photos are not there.
    """

    def __init__(
        self,
        run_or_output: Run | Path | str,
        *,
        neighbors: int = 20,
        config: LocalizeConfig | None = None,
        photos: Path | str | None = None,
        device: str = "auto",
    ) -> None:
        output = run_or_output.output if isinstance(run_or_output, Run) else Path(run_or_output)
        workspace = Workspace(output)
        if not workspace.sparse.is_dir() or not workspace.config.is_file():
            raise UsageError(f"{output}: no mapped model (sparse/) here; run the pipeline first")
        settings = _read_settings(workspace.config)
        self.neighbors, self.device = neighbors, device
        self.config = config or settings.localize or LocalizeConfig()
        self._match = settings.match or default_match()
        self._seed = settings.seed
        self._store = FeatureStore(workspace.features)
        self._tracks = colmap.Tracks(colmap.read_model(workspace.sparse))
        colmap.set_verbosity(False)
        self._extractor = features.create(settings.extract.local, device)
        stored_as = settings.extract.compact
        own = workspace.features / "basis.safetensors"
        basis = Path(stored_as.basis) if stored_as.basis else own
        self._encoding = stored_as.encoding
        self._basis = None if stored_as.dim is None else read_basis(basis)
        self._describer = None
        self._index: GlobalIndex | None = None
        stored = self._store.fingerprints()
        self._names = [name for name in self._tracks.names if name in stored]
        if settings.extract.global_ is not None:
            self._describer = create_describer(settings.extract.global_, self._extractor, device)
            self._index = read_index(workspace.global_ / "index.h5")
        self._refiner = None
        if self.config.refine is not None:
            root = _photo_root(settings, workspace) if photos is None else Path(photos)
            _check_photos(root, self._names)
            limit = self.config.max_error_px
            self._refiner = QueryRefiner(
                self.config.refine, self._tracks, root, max_error_px=limit, device=device
            )

    def __call__(
        self, image: ImageArray | Path | str, camera: colmap.Camera | Intrinsics | None = None
    ) -> PoseEstimate:
        """The pose of a photo in the map's frame, or why there is none.

        image: (H, W, 3) uint8 RGB, or a file. camera: its intrinsics (pycolmap.Camera or
        `Intrinsics`); None: a file's are guessed from EXIF, and the focal length is estimated.
        Raises ImageError for an unreadable file, UsageError for an array without a camera or a
        camera of another size.
        """
        name = "query" if isinstance(image, np.ndarray) else str(image)
        pixels = image if isinstance(image, np.ndarray) else read_image(image)
        known = _as_camera(image, camera, (pixels.shape[1], pixels.shape[0]))
        found, descriptor = self._describe(pixels)
        where = resolve_device(self.device)
        # As those of the map are stored, which is what the map's own matches came from.
        asked = as_tensor(compact(found.descriptors, self._basis, self._encoding), where)
        matches = {}
        for other in self._candidates(descriptor):
            stored = self._store.load(other)
            matches[other] = match_images(
                (asked, as_tensor(stored.descriptors, where)),
                (found.keypoints, stored.keypoints),
                self._match,
            )
        free = self.config.refine_focal
        refine = None
        if self._refiner is not None:
            refine = self._refiner.query(pixels, found.keypoints, matches, known)
        return localize_matches(
            name,
            found.keypoints,
            matches,
            self._tracks,
            known,
            self.config,
            refine_focal=camera is None if free is None else free,
            seed=self._seed,
            refine=refine,
        )

    def _describe(self, pixels: ImageArray) -> tuple[LocalFeatures, FloatArray | None]:
        prepared = self._extractor.prepare(pixels)
        if self._describer is None or self._index is None:
            return self._extractor.extract([prepared])[0], None
        found, rows = self._describer.extract([prepared], [self._describer.prepare(pixels)])
        return found[0], self._index.aggregation(rows[0])

    def _candidates(self, descriptor: FloatArray | None) -> list[str]:
        if descriptor is None or self._index is None:
            return self._names
        known = set(self._index.names)
        names = [name for name in self._names if name in known]
        found, _ = nearest(descriptor[None], self._index.select(names), self.neighbors)
        return sorted(names[i] for i in found[0])


def localize(
    run_or_output: Run | Path | str,
    image: ImageArray | Path | str,
    camera: colmap.Camera | Intrinsics | None = None,
    *,
    neighbors: int = 20,
    photos: Path | str | None = None,
    device: str = "auto",
) -> PoseEstimate:
    """`Localizer` for a single photo."""
    localizer = Localizer(run_or_output, neighbors=neighbors, photos=photos, device=device)
    return localizer(image, camera)


def _read_settings(path: Path) -> _MapSettings:
    written = yaml.safe_load(path.read_text(encoding="utf-8"))["config"]
    data = {name: written[name] for name in _MapSettings.model_fields if name in written}
    return validate(_MapSettings, data, f"{path}: config")


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
