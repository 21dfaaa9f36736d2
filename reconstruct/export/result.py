"""What there is to export: the model, the photos, and the stores of a run."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path

from reconstruct import colmap
from reconstruct.config import Section, read_yaml, validate
from reconstruct.datasets.loading import DatasetConfig, load_dataset
from reconstruct.errors import DataError, UsageError
from reconstruct.files import read_json
from reconstruct.workspace import Workspace


class _Settings(Section):
    dataset: DatasetConfig


class Result:
    """A finished run, read when it is asked for.

    output: its output folder. images: folder of its photos; None: where the run found them.
    """

    def __init__(self, output: Path, images: Path | None = None) -> None:
        self.workspace = Workspace(output)
        self._images = images

    @cached_property
    def model(self) -> colmap.Reconstruction:
        """The mapped model. Raises UsageError if there is none."""
        if not self.workspace.sparse.is_dir():
            raise UsageError(
                f"{self.workspace.root}: no mapped model (sparse/) here; run the pipeline first"
            )
        return colmap.read_model(self.workspace.sparse)

    @cached_property
    def images(self) -> Path:
        """Folder of the photos, with all those of the model. Raises UsageError if one is gone."""
        folder = self._images or self._images_of_run()
        for name in colmap.model_poses(self.model):
            if not (folder / name).is_file():
                raise UsageError(
                    f"{folder / name}: no such photo, but the model has it; give the folder of the "
                    "photos as `images` (--images), or run from the folder where the pipeline ran"
                )
        return folder

    @cached_property
    def origin(self) -> tuple[float, float, float]:
        """Latitude, longitude (degrees) and altitude of the frame of a model aligned with GPS.

        Raises UsageError if the model is not.
        """
        try:
            content = read_json(self.workspace.gps)
            origin = content["origin"] if content["models"][0]["aligned"] else {}
            return (
                float(origin["latitude"]),
                float(origin["longitude"]),
                float(origin["altitude"]),
            )
        except (OSError, ValueError, LookupError, TypeError) as error:
            raise UsageError(
                f"{self.workspace.root}: its model is not aligned with GPS (no gps.json that says "
                "so); run with dataset.gps={} or {positions: FILE.csv}"
            ) from error

    def _images_of_run(self) -> Path:
        path = self.workspace.config
        try:
            config = read_yaml(path)["config"]
            settings = validate(_Settings, {"dataset": config["dataset"]}, str(path))
            return load_dataset(settings.dataset, self.workspace.dataset).root
        except (KeyError, TypeError, DataError, UsageError) as error:
            raise UsageError(
                f"{path}: does not tell where the photos are ({error}); give their folder as "
                "`images` (--images)"
            ) from error
