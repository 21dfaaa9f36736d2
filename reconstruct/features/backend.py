"""The library that runs the trunk: torch anywhere, or onnxruntime on a CPU.

Both compute the same network in float32 (maps agree to 1e-3 of their maximum or better), so the
choice is left out of fingerprints, like the device. Both return maps that belong to the caller, who
may change them.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from reconstruct.errors import ConfigError
from reconstruct.features.pyramid import FeatureNetwork
from reconstruct.features.vgg import AVERAGE_POOL_AFTER, LAST, MAX_POOL_AFTER, build_trunk, dilation
from reconstruct.features.weights import CONVOLUTIONS

Tensors = Mapping[str, NDArray[np.float32]]

_OPSET: Final = 17
_IR_VERSION: Final = 8
"""Version of the format: old enough for every onnxruntime that the package allows."""


def choose_backend(name: str, device: torch.device) -> str:
    """Resolve a setting of ``auto``, ``torch`` or ``onnxruntime`` to the last two.

    Raises ConfigError if onnxruntime is asked for but cannot run on the device.
    """
    if name == "torch":
        return name
    available = all(importlib.util.find_spec(module) for module in ("onnx", "onnxruntime"))
    if device.type == "cpu" and available:
        return "onnxruntime"
    if name == "auto":
        return "torch"
    reason = f"it runs on a CPU here, not on {device}" if available else "it is not installed"
    raise ConfigError(f"backend: onnxruntime: {reason}; use `backend: auto` or `torch`")


def make_network(
    backend: str, tensors: Tensors, *, use_relu: bool, device: torch.device, fp16: bool = False
) -> FeatureNetwork:
    """The trunk as a function of (B, 3, H, W) normalised images.

    Args:
        backend: ``torch`` or ``onnxruntime``.
        tensors: Weights, named as in `reconstruct.features.weights`.
        use_relu: Apply the ReLU after the last convolution.
        device: Where it runs.
        fp16: Half precision; has an effect on CUDA only.
    """
    if backend == "onnxruntime":
        return OnnxNetwork(tensors, use_relu)
    return TorchNetwork(tensors, use_relu, device, fp16)


class TorchNetwork:
    """The trunk in torch, channels last: on a CPU this takes 0.73 of the time of the default
    layout."""

    def __init__(
        self, tensors: Tensors, use_relu: bool, device: torch.device, fp16: bool = False
    ) -> None:
        self.device = device
        self.fp16 = fp16 and device.type == "cuda"
        trunk = build_trunk(tensors, use_relu).to(device)
        # mypy: torch's stubs lack the documented overload that takes only a memory format.
        self.trunk = trunk.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def __call__(self, images: Tensor) -> Tensor:
        images = images.contiguous(memory_format=torch.channels_last)
        with torch.no_grad(), torch.autocast("cuda", enabled=self.fp16):
            features: Tensor = self.trunk(images)
        return features.float()


class OnnxNetwork:
    """The trunk in onnxruntime on the CPU, with as many threads as torch uses."""

    def __init__(self, tensors: Tensors, use_relu: bool) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        # An arena keeps the peak of the largest image for good, and rounds it up.
        options.enable_cpu_mem_arena = False
        # Threads that spin between images would take the processor from whatever runs then.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.log_severity_level = 3
        self.session = onnxruntime.InferenceSession(
            onnx_model(tensors, use_relu), options, providers=["CPUExecutionProvider"]
        )

    def __call__(self, images: Tensor) -> Tensor:
        values = images.contiguous().numpy()
        return torch.from_numpy(self.session.run(None, {"images": values})[0])


def onnx_model(tensors: Tensors, use_relu: bool) -> bytes:
    """The trunk as a serialised ONNX model, (B, 3, H, W) -> (B, 512, h, w), all sizes dynamic."""
    from onnx import TensorProto, helper, numpy_helper

    nodes: list[Any] = []
    for name in CONVOLUTIONS:
        nodes += _convolution_nodes(name, nodes[-1].output[0] if nodes else "images", use_relu)
    shapes: dict[str, list[str | int | None]]
    shapes = {"images": ["batch", 3, "height", "width"], "features": ["batch", 512, "rows", "cols"]}
    values = {
        name: helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
        for name, shape in shapes.items()
    }
    nodes[-1].output[0] = "features"
    graph = helper.make_graph(
        nodes,
        "d2net",
        [values["images"]],
        [values["features"]],
        [numpy_helper.from_array(value, name) for name, value in tensors.items()],
    )
    opset = helper.make_opsetid("", _OPSET)
    model = helper.make_model(graph, opset_imports=[opset], ir_version=_IR_VERSION)
    return bytes(model.SerializeToString())


def _convolution_nodes(name: str, source: str, use_relu: bool) -> list[Any]:
    """Nodes of a convolution and of the ReLU and pooling that follow it."""
    from onnx import helper

    pad = dilation(name)
    nodes = [
        helper.make_node(
            "Conv",
            [source, f"{name}.weight", f"{name}.bias"],
            [name],
            kernel_shape=[3, 3],
            dilations=[pad, pad],
            pads=[pad] * 4,
        )
    ]
    if name != LAST or use_relu:
        nodes.append(helper.make_node("Relu", [name], [f"{name}.relu"]))
    if name in MAX_POOL_AFTER or name == AVERAGE_POOL_AFTER:
        kind, stride = ("AveragePool", 1) if name == AVERAGE_POOL_AFTER else ("MaxPool", 2)
        before, after = nodes[-1].output[0], f"{name}.pool"
        sizes: dict[str, Any] = {"kernel_shape": [2, 2], "strides": [stride, stride]}
        nodes.append(helper.make_node(kind, [before], [after], **sizes))
    return nodes
