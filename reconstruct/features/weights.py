"""Network weights: by name (embedded or downloaded) or from a file, converted to one layout.

The preprocessing of the input belongs to the weights and is decided here, by the layout of the
file, never by a separate option: a wrong combination gives keypoints that look plausible and match
badly.

Layouts that are read, as ``.safetensors``, ``.pth`` or ``.pt``:

==============================================================  ==================
names                                                           input
==============================================================  ==================
``conv1_1.weight`` ... (ours)                                   Caffe
``dense_feature_extraction.model.0.weight`` ... (the release)   Caffe
``features.0.weight`` ... (torchvision's VGG-16)                torchvision
==============================================================  ==================

Only tensors are ever unpickled. Importing this module loads neither torch nor a weight.
"""

from __future__ import annotations

import hashlib
import pickle
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

from reconstruct.errors import WeightsError
from reconstruct.features.published import published_file

CONVOLUTIONS: Final[dict[str, tuple[int, int, int]]] = {
    # name: (input channels, output channels, index in VGG-16's `features`)
    "conv1_1": (3, 64, 0),
    "conv1_2": (64, 64, 2),
    "conv2_1": (64, 128, 5),
    "conv2_2": (128, 128, 7),
    "conv3_1": (128, 256, 10),
    "conv3_2": (256, 256, 12),
    "conv3_3": (256, 256, 14),
    "conv4_1": (256, 512, 17),
    "conv4_2": (512, 512, 19),
    "conv4_3": (512, 512, 21),
}

_TRUNK: Final = "vgg16_imagenet_conv4_3.safetensors"
EMBEDDED: Final = {
    # name: files, a later one replacing what it names (fine-tuning changes conv4_3 alone)
    "vgg16": (_TRUNK,),
    "d2_homography": (_TRUNK, "d2_homography_conv4_3.safetensors"),
}
DOWNLOADS: Final = {
    "d2_ots": "d2_ots.pth",
    "d2_tf": "d2_tf.pth",
    "d2_tf_no_phototourism": "d2_tf_no_phototourism.pth",
}
"""Name -> file of D2-Net's release, see `published`."""
SUFFIXES: Final = (".safetensors", ".pth", ".pt")
_RELEASE_PREFIX: Final = "dense_feature_extraction.model."
_TORCHVISION_PREFIX: Final = "features."


@dataclass(frozen=True, slots=True)
class Preprocessing:
    """Network input = (channels of an RGB image 0..255, in ``order``, / ``scale`` - mean) / std."""

    order: tuple[int, int, int]
    scale: float
    mean: tuple[float, float, float]
    std: tuple[float, float, float]


CAFFE: Final = Preprocessing((2, 1, 0), 1.0, (103.939, 116.779, 123.68), (1.0, 1.0, 1.0))
TORCHVISION: Final = Preprocessing((0, 1, 2), 255.0, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


@dataclass(frozen=True, slots=True, eq=False)
class TrunkWeights:
    """Weights of the trunk.

    Attributes:
        tensors: float32 arrays ``conv1_1.weight`` (out, in, 3, 3), ``conv1_1.bias`` (out,) ...
        preprocessing: The input that they were trained for.
    """

    tensors: Mapping[str, NDArray[np.float32]]
    preprocessing: Preprocessing

    def content_hash(self) -> str:
        """SHA-256 (hex) over names, shapes, float32 values and preprocessing.

        The same network has the same hash whatever file it comes from.
        """
        digest = hashlib.sha256(repr(self.preprocessing).encode())
        for name in sorted(self.tensors):
            value = np.ascontiguousarray(self.tensors[name], "<f4")
            digest.update(f"{name}{value.shape}".encode())
            digest.update(value.data)
        return digest.hexdigest()


def tensors_hash(tensors: Mapping[str, Any]) -> str:
    """SHA-256 (hex) over the names and values of a network's tensors."""
    digest = hashlib.sha256()
    for name, value in sorted(tensors.items()):
        digest.update(name.encode())
        digest.update(np.ascontiguousarray(value.cpu().numpy()).data)
    return digest.hexdigest()


def valid_names() -> list[str]:
    """Names of known weights; any other name is the path of a file."""
    return [*EMBEDDED, *DOWNLOADS]


def load_weights(
    source: str, *, cache_dir: Path | None = None, mirrors: Sequence[str] = ()
) -> TrunkWeights:
    """Weights by name (`valid_names`) or from a file.

    Args:
        source: Name of the weights or path of a file.
        cache_dir: Folder of downloads; None: the default.
        mirrors: Base addresses that are tried before the authors' addresses.

    Raises:
        WeightsError: The file is missing, cannot be downloaded, is corrupt, or has another layout.
    """
    if source in EMBEDDED:
        entries: dict[str, Any] = {}
        for file in EMBEDDED[source]:
            data = resources.files("reconstruct").joinpath("data", file)
            with resources.as_file(data) as path:
                entries |= _read_safetensors(path)
        return _from_entries(entries, source)
    if source in DOWNLOADS:
        return read_weights(published_file(DOWNLOADS[source], cache_dir=cache_dir, mirrors=mirrors))
    return read_weights(Path(source).expanduser())


def read_weights(path: Path) -> TrunkWeights:
    """The trunk in a file of one of the layouts above. Raises WeightsError."""
    if not path.is_file():  # a pipe is none either
        raise WeightsError(
            f"{path}: no such weights file; give a path to {', '.join(SUFFIXES)} "
            f"or one of {', '.join(valid_names())}"
        )
    if path.suffix == ".safetensors":
        entries = _read_safetensors(path)
    elif path.suffix in SUFFIXES:
        entries = _read_checkpoint(path)
    else:
        raise WeightsError(f"{path}: expected a name that ends in {', '.join(SUFFIXES)}")
    return _from_entries(entries, str(path))


def _read_safetensors(path: Path) -> Mapping[str, Any]:
    try:
        with safe_open(path, "numpy") as file:
            names = list(file.keys())
            kinds = {file.get_slice(name).get_dtype() for name in names}
            if kinds <= _NUMPY_KINDS:
                return {name: file.get_tensor(name) for name in names}
        from safetensors.torch import load_file  # NumPy has no bfloat16, and no 8-bit floats

        entries: dict[str, Any] = load_file(path)
    except (SafetensorError, *UNREADABLE) as error:
        raise WeightsError(f"{path}: not a readable safetensors file ({_short(error)})") from error
    return entries


_NUMPY_KINDS: Final = {"F64", "F32", "F16", "I64", "I32", "I16", "I8", "U8", "BOOL"}

UNREADABLE: Final = (
    *(OSError, EOFError, ValueError, TypeError, LookupError, AttributeError, ArithmeticError),
    *(RuntimeError, MemoryError, AssertionError),
)
"""What torch and safetensors raise for files that are damaged, or of another kind."""


def read_tensors(path: Path) -> Any:
    """What a ``.safetensors`` file or any other checkpoint holds, on the CPU, as torch's tensors.

    Raises WeightsError naming the file.
    """
    import torch

    if path.suffix != ".safetensors":
        return read_checkpoint(path)
    return {name: torch.as_tensor(value) for name, value in _read_safetensors(path).items()}


def read_checkpoint(path: Path) -> Any:
    """What a PyTorch file holds, on the CPU; nothing but tensors and plain values is made.

    Raises WeightsError naming the file.
    """
    import torch

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of torch, about formats of old
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise WeightsError(_foreign_objects(path, str(error))) from error
    except UNREADABLE as error:
        raise WeightsError(
            f"{path}: not a readable PyTorch checkpoint ({_short(error)})"
        ) from error


def _read_checkpoint(path: Path) -> Mapping[str, Any]:
    import torch

    checkpoint = read_checkpoint(path)
    if isinstance(checkpoint, Mapping) and isinstance(checkpoint.get("model"), Mapping):
        checkpoint = checkpoint["model"]
    if not isinstance(checkpoint, Mapping):
        raise WeightsError(f"{path}: expected a dict of tensors, got {type(checkpoint).__name__}")
    return {
        str(name): value for name, value in checkpoint.items() if isinstance(value, torch.Tensor)
    }


def dense_array(value: Any, shape: tuple[int, ...], place: str) -> NDArray[np.float32]:
    """A tensor (of NumPy or torch) as finite float32 numbers of a certain shape.

    Raises WeightsError that begins with ``place``, before anything of another shape is converted.
    """
    if tuple(value.shape) != shape:
        raise WeightsError(f"{place} has shape {tuple(value.shape)}, expected {shape}")
    try:
        with np.errstate(over="ignore"):
            if not isinstance(value, np.ndarray):
                if not value.is_floating_point():
                    raise TypeError(f"of {value.dtype}")
                value = value.detach().float().numpy()
            array = np.array(value, np.float32)
    except UNREADABLE as error:  # sparse, without data (meta), quantized, complex ...
        raise WeightsError(f"{place} is no plain tensor of numbers ({_short(error)})") from error
    if not np.isfinite(array).all():
        raise WeightsError(f"{place} holds values that are not finite")
    return array


def _short(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__)[:300]


def _foreign_objects(path: Path, reason: str) -> str:
    if "Namespace" in reason:
        return (
            f"{path}: a checkpoint of D2-Net's training script, which stores an argparse.Namespace "
            "beside the weights; only tensors are read here. If you trust the file, convert it "
            "once: `c = torch.load(path, weights_only=False); "
            "torch.save({'model': c['model']}, 'converted.pth')`, then use converted.pth"
        )
    # The rest of torch's message tells how to read it anyway, which would run code of the file.
    cause = reason.partition("WeightsUnpickler error:")[2].strip().split("\n")[0][:200]
    return (
        f"{path}: not a readable PyTorch checkpoint: damaged, or holds more than tensors, which is "
        f"not read ({cause or 'no tensors'})"
    )


def _from_entries(entries: Mapping[str, Any], source: str) -> TrunkWeights:
    """Convert any known layout to ours. Raises WeightsError naming the first entry that is
    missing."""
    prefix, preprocessing = "", CAFFE
    if any(name.startswith(_RELEASE_PREFIX) for name in entries):
        prefix = _RELEASE_PREFIX
    elif any(name.startswith(_TORCHVISION_PREFIX) for name in entries):
        prefix, preprocessing = _TORCHVISION_PREFIX, TORCHVISION
    tensors: dict[str, NDArray[np.float32]] = {}
    for name, (inputs, outputs, index) in CONVOLUTIONS.items():
        stem = f"{prefix}{index}" if prefix else name
        shapes = {"weight": (outputs, inputs, 3, 3), "bias": (outputs,)}
        for kind, shape in shapes.items():
            tensors[f"{name}.{kind}"] = _entry(entries, f"{stem}.{kind}", shape, source)
    return TrunkWeights(tensors, preprocessing)


def _entry(
    entries: Mapping[str, Any], key: str, shape: tuple[int, ...], source: str
) -> NDArray[np.float32]:
    if key not in entries:
        present = ", ".join(sorted(entries)[:4]) or "nothing"
        raise WeightsError(
            f"{source}: no entry {key!r}, so this is not VGG-16 up to conv4_3 in one of the "
            f"layouts that are read (ours, D2-Net's release, torchvision); found {present} ..."
        )
    return dense_array(entries[key], shape, f"{source}: {key}")
