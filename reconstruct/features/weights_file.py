"""The weights of a network in the file that its authors give: read when they are first needed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reconstruct.errors import WeightsError
from reconstruct.features.weights import dense_array, tensors_hash

if TYPE_CHECKING:
    from torch import Tensor


class WeightsFile:
    """Tensors of a file on a device. Pickled without them: each process reads the file itself.

    Args:
        path: The file; ``~`` is the user's folder.
        read: Reads and checks it, see `checked_tensors`.
        device: ``auto`` or the name of a torch device.
    """

    def __init__(self, path: str, read: Callable[[Path], dict[str, Tensor]], device: str) -> None:
        self.path = path
        self.read = read
        self.device = device
        self._tensors: dict[str, Tensor] | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_tensors": None}

    def tensors(self) -> dict[str, Tensor]:
        """Name -> tensor, on the device. Raises WeightsError."""
        if self._tensors is None:
            from reconstruct.torch_device import resolve_device

            device = resolve_device(self.device)
            path = Path(self.path).expanduser()
            self._tensors = {name: value.to(device) for name, value in self.read(path).items()}
        return self._tensors

    def content_hash(self) -> str:
        """SHA-256 (hex) over names and values, whatever the file is called. Raises WeightsError."""
        return tensors_hash(self.tensors())


def checked_tensors(
    entries: Any, shapes: Mapping[str, tuple[int, ...]], path: Path, layout: str
) -> dict[str, Tensor]:
    """The tensors of a network among the entries of a checkpoint, as finite float32.

    Args:
        entries: What the file holds: name -> tensor, if it is of the right kind.
        shapes: Name -> shape of every tensor that the network needs.
        path: The file, for messages.
        layout: The file whose layout is expected, for messages.

    Raises:
        WeightsError: A tensor is missing, of another shape, or not all finite.
    """
    import torch

    result = {}
    for name, shape in shapes.items():
        value = entries.get(name) if isinstance(entries, Mapping) else None
        if not isinstance(value, torch.Tensor) or tuple(value.shape) != shape:
            raise WeightsError(
                f"{path}: no tensor {name!r} of shape {shape}, so this is not in the layout of "
                f"{layout}"
            )
        result[name] = torch.from_numpy(dense_array(value, shape, f"{path}: {name}"))
    return result
