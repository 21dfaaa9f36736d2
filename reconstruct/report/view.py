"""``reconstruct view OUT``: models and photos, live in the browser, with viser (extra ``view``).

Unlike the viewer in report.html it needs a server, and shows all points of large models.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np

from reconstruct import colmap
from reconstruct.config import read_yaml
from reconstruct.errors import ImageError, UsageError
from reconstruct.geometry import Float64, quaternion
from reconstruct.images import read_image
from reconstruct.report.gps import up_of
from reconstruct.report.scene import upward
from reconstruct.stages.georegister import read_gps
from reconstruct.workspace import Workspace

HOST, PORT = "127.0.0.1", 8080
PHOTO_PX = 480
"""Edge of a photo in its frustum."""
FRUSTUM = 0.04
"""Size of a frustum relative to the spread of the cameras."""


def view(output: Path, *, host: str = HOST, port: int = PORT, photos: Path | None = None) -> None:
    """Serve the models of an output folder until interrupted.

    Args:
        output: a finished output folder, or a COLMAP model folder.
        host: the address to listen at; by default only this machine sees the page.
        photos: folder of the photos; None: the one that the run read, where it still is.

    Raises:
        UsageError: viser is not installed, or there is no model.
    """
    server = serve(output, host=host, port=port, photos=photos)
    print(f"{output}: http://{host}:{server.get_port()} (end with Ctrl-C)")
    try:
        while True:
            time.sleep(3600)
    finally:
        server.stop()


def serve(output: Path, *, host: str = HOST, port: int = PORT, photos: Path | None = None) -> Any:
    """A running `viser.ViserServer` with every model of ``output``; see `view`."""
    try:
        import viser
    except ImportError as error:
        raise UsageError(
            "`view` needs viser: pip install 'reconstruct[view]'; report.html needs nothing"
        ) from error
    folders = Workspace(output).models() or [output]
    models = [colmap.model_arrays(colmap.read_model(folder)) for folder in folders]
    root = photos or _photos(output)
    server = viser.ViserServer(host=host, port=port, verbose=False)
    known = up_of(read_gps(Workspace(output)))
    up = upward(models[0].poses) if known is None else known
    server.scene.set_up_direction(tuple(up))
    eye, target = _overview(models[0], up)

    def look(client: Any) -> None:
        client.camera.position, client.camera.look_at = tuple(eye), tuple(target)

    server.on_client_connect(look)
    size = server.gui.add_slider("point size", 0.1, 5.0, 0.1, 1.0)
    clouds = [_add_model(server, f"/model_{i}", m, root) for i, m in enumerate(models)]

    def resize(_: Any) -> None:
        for cloud, base in clouds:
            cloud.point_size = base * size.value

    size.on_update(resize)
    return server


def _overview(model: colmap.ModelArrays, up: Float64) -> tuple[Float64, Float64]:
    """A place behind and above the cameras, and the middle of what they see."""
    seen = np.concatenate([model.centers, model.xyz])
    low, high = np.percentile(seen, (4, 96), axis=0) if len(seen) else np.zeros((2, 3))
    ahead = model.poses[:, 2, :3].mean(axis=0) if len(model.poses) else np.zeros(3)
    ahead -= up * (ahead @ up)  # along the ground
    away = 0.5 * up - ahead / max(float(np.linalg.norm(ahead)), 1e-6)
    target = (low + high) / 2
    return target + 0.8 * float(np.linalg.norm(high - low)) * away, target


def _add_model(
    server: Any, name: str, model: colmap.ModelArrays, root: Path | None
) -> tuple[Any, float]:
    """The cloud and its point size. A click on a frustum flies to where its photo was taken."""
    centers = model.centers
    spread = float(np.ptp(centers, axis=0).max()) if len(centers) else 1.0
    base = 0.002 * max(spread, 1e-6)
    cloud = server.scene.add_point_cloud(
        f"{name}/points", model.xyz.astype(np.float32), model.colors, point_size=base
    )
    for i, camera in enumerate(model.cameras):
        slope = camera.height / 2 / camera.focal_length_y
        frustum = server.scene.add_camera_frustum(
            f"{name}/cameras/{i}",
            fov=float(2 * np.arctan(slope)),
            aspect=camera.width / camera.height,
            scale=FRUSTUM * max(spread, 1e-6),
            image=_small(root, model.names[i]),
            wxyz=tuple(quaternion(model.poses[i, :, :3].T)),
            position=tuple(centers[i]),
        )
        _fly_on_click(frustum)
    return cloud, base


def _fly_on_click(frustum: Any) -> None:
    def fly(event: Any) -> None:
        event.client.camera.wxyz = frustum.wxyz
        event.client.camera.position = frustum.position

    frustum.on_click(fly)


def _photos(output: Path) -> Path | None:
    """The folder that the run read its photos from."""
    workspace = Workspace(output)
    try:
        images = read_yaml(workspace.config)["config"]["dataset"].get("images")
    except (UsageError, KeyError, TypeError, AttributeError):
        return None
    folder = Path(images) if images else workspace.dataset / "images"
    return folder if folder.is_dir() else None


def _small(root: Path | None, name: str) -> Any:
    if root is None:
        return None
    try:
        image = read_image(root / name)
    except ImageError:
        return None
    step = max(1, max(image.shape[:2]) // PHOTO_PX)
    return np.ascontiguousarray(image[::step, ::step])
