"""LightGlue (Lindenberger et al., ICCV 2023), and XFeat's small LighterGlue: a network that looks
at all keypoints of both images at once.

Its weights belong to one kind of descriptors. A checkpoint runs in the library kornia (optional
extra), whose size and number of layers are read from the file; an exported ``.onnx`` runs in
onnxruntime. Early stopping and pruning, which trade matches for time, are off.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from pydantic import Field

from reconstruct.errors import MissingLibraryError, UsageError, WeightsError
from reconstruct.features.published import published_file
from reconstruct.features.weights import UNREADABLE, read_tensors, tensors_hash
from reconstruct.fingerprints import file_hash
from reconstruct.lazy import lazily
from reconstruct.matching import MatcherConfig
from reconstruct.matching.nearest import unit_vectors
from reconstruct.torch_device import resolve_device
from reconstruct.types import LocalFeatures, Matches

if TYPE_CHECKING:
    import torch
    from onnxruntime import InferenceSession
    from torch import Tensor
else:
    torch = lazily("torch")

DOWNLOADED = {
    "aliked": "aliked_lightglue.pth",
    "disk": "disk_lightglue.pth",
    "superpoint": "superpoint_lightglue.pth",
    "xfeat": "xfeat-lighterglue.pt",
}
"""Kind of features -> the authors' file. Others need orientations, which are not kept."""
INPUTS = ("kpts0", "kpts1", "desc0", "desc1")
"""Of an exported network; its outputs are ``matches``, (M, 2), and ``scores``, (M,)."""


class LightGlueConfig(MatcherConfig):
    """A network on the keypoints and descriptors of both images."""

    method: Literal["lightglue"]
    weights: str
    """Path of a checkpoint (aliked_lightglue.pth, xfeat-lighterglue.pt ...) or of an exported
    network (.onnx); or aliked, disk, superpoint, xfeat: the authors', downloaded once."""
    threshold: float = Field(0.1, ge=0, le=1)
    """Keep a match only if its score, a probability, is above this."""


@dataclass(frozen=True, slots=True, eq=False)
class Keypoints:
    """An image: (1, N, 2) positions, the middle of the image at 0 and half its longest edge at 1;
    (1, N, D) unit descriptors."""

    positions: Tensor
    descriptors: Tensor

    @property
    def nbytes(self) -> int:
        """Memory that it takes."""
        return self.positions.nbytes + self.descriptors.nbytes


class LightGlue:
    """See `reconstruct.matching.Matcher`; the network is loaded with the first image."""

    reads = ("keypoints", "descriptors")

    def __init__(self, config: LightGlueConfig, *, device: str = "auto") -> None:
        self.config = config
        self.exported = config.weights.endswith(".onnx")
        self.device = torch.device("cpu") if self.exported else resolve_device(device)

    def __getstate__(self) -> dict[str, Any]:
        return {name: v for name, v in self.__dict__.items() if name not in ("network", "session")}

    def identity(self) -> dict[str, Any]:
        """The settings, and the weights by content."""
        own = {**self.config.identity(), "weights": self._weights_hash()}
        return own if self.exported else {**own, "kornia": metadata.version("kornia")}

    def prepare(self, features: LocalFeatures) -> Keypoints:
        """Raises UsageError if the descriptors are not of the kind that the weights are for."""
        descriptors = unit_vectors(features.descriptors, self.device)
        if len(descriptors) and self.dim not in (None, descriptors.shape[1]):
            raise UsageError(
                f"match.weights: {self.config.weights} is for descriptors of {self.dim} "
                f"dimensions, the extractor's have {descriptors.shape[1]}; give those of its kind"
            )
        size = np.array(features.image_size, np.float32)
        positions = (features.keypoints - size / 2) / (size.max() / 2)
        where = torch.from_numpy(np.asarray(positions, np.float32)).to(self.device)
        return Keypoints(where[None], descriptors[None])

    def match(self, first: Keypoints, second: Keypoints) -> Matches:
        """Matches by their probabilities."""
        if not first.descriptors.shape[1] or not second.descriptors.shape[1]:
            return Matches.empty()
        rows, scores = (self._exported if self.exported else self._checkpoint)(first, second)
        kept = np.flatnonzero(scores > self.config.threshold)
        kept = kept[np.argsort(rows[kept, 0], kind="stable")]
        return Matches(indices=rows[kept].astype(np.uint32), scores=scores[kept].astype(np.float32))

    def _checkpoint(self, first: Keypoints, second: Keypoints) -> tuple[Any, Any]:
        # kornia takes pixels and brings them to this range by itself: of an image of 2 by 2, which
        # are pixels from -1 to 1, it makes the same numbers.
        size = torch.full((1, 2), 2.0, device=self.device)
        images = (
            {"keypoints": x.positions + 1, "descriptors": x.descriptors, "image_size": size}
            for x in (first, second)
        )
        with torch.inference_mode():
            found = self.network(dict(zip(("image0", "image1"), images, strict=True)))
        return found["matches"][0].cpu().numpy(), found["scores"][0].float().cpu().numpy()

    def _exported(self, first: Keypoints, second: Keypoints) -> tuple[Any, Any]:
        values = (first.positions, second.positions, first.descriptors, second.descriptors)
        given = {name: value.numpy() for name, value in zip(INPUTS, values, strict=True)}
        return tuple(self.session.run(["matches", "scores"], given))

    @property
    def dim(self) -> int | None:
        """Length of the descriptors that the weights are for; None where an exported network does
        not say."""
        if self.exported:
            shapes = {i.name: i.shape for i in self.session.get_inputs()}
            last = shapes["desc0"][-1]
            return last if isinstance(last, int) else None
        return int(self.network.conf.input_dim)

    @cached_property
    def network(self) -> Any:
        """kornia's network with the weights. Raises MissingLibraryError or WeightsError."""
        network = build(self.config.weights, self.config.threshold)
        return network.eval().to(self.device)

    @cached_property
    def session(self) -> InferenceSession:
        """The exported network. Raises WeightsError."""
        return open_exported(Path(self.config.weights).expanduser())

    def _weights_hash(self) -> str:
        path = Path(self.config.weights).expanduser()
        if path.is_file():
            return file_hash(path)
        return tensors_hash(self.network.state_dict())


def open_exported(path: Path) -> InferenceSession:
    """The network in an .onnx file. Raises WeightsError if it is not one that matches keypoints."""
    import onnxruntime

    if not path.is_file():
        raise WeightsError(f"{path}: no such weights file; give the path of an exported LightGlue")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1  # pairs run side by side
    try:
        session = onnxruntime.InferenceSession(str(path), options, ["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's own, which share no base
        raise WeightsError(f"{path}: not a readable .onnx file ({error})") from error
    inputs = {i.name for i in session.get_inputs()}
    outputs = {o.name for o in session.get_outputs()}
    if inputs != set(INPUTS) or not {"matches", "scores"} <= outputs:
        raise WeightsError(
            f"{path}: expected a network from {', '.join(INPUTS)} to matches, scores; this one "
            f"goes from {', '.join(sorted(inputs))} to {', '.join(sorted(outputs))}"
        )
    return session


def build(weights: str, threshold: float) -> Any:
    """kornia's LightGlue with the weights of a file, or those that the authors publish.

    Args:
        weights: As in `LightGlueConfig`.
        threshold: Least score of a match.

    Raises:
        MissingLibraryError: kornia is missing.
        WeightsError: The file is missing, cannot be downloaded, or is not a LightGlue.
    """
    need_library()  # before a download
    path = Path(weights).expanduser()
    if not path.is_file():
        if weights not in DOWNLOADED:
            raise WeightsError(
                f"{path}: no such weights file; give the path of a LightGlue checkpoint or .onnx, "
                f"or one of {', '.join(DOWNLOADED)}"
            )
        path = published_file(DOWNLOADED[weights])
    entries = renamed(read_tensors(path))
    try:
        network = make_network(**architecture(entries), filter_threshold=threshold)
        missing = set(network.load_state_dict(entries, strict=False).missing_keys)
    except UNREADABLE as error:
        raise WeightsError(f"{path}: not the weights of a LightGlue ({error})") from error
    missing &= {n for n, _ in network.named_parameters() if not n.startswith("token_confidence")}
    if missing:
        raise WeightsError(f"{path}: not the weights of a LightGlue (no {min(missing)})")
    return network


def make_network(**settings: Any) -> Any:
    """kornia's LightGlue with weights drawn at random, early stopping and pruning off.

    Args:
        settings: As kornia names them: ``input_dim``, ``descriptor_dim``, ``num_heads`` ...

    Raises:
        MissingLibraryError: kornia is missing.
    """
    need_library()
    library: Any = importlib.import_module("kornia.feature")
    return library.LightGlue(
        None, **settings, depth_confidence=-1, width_confidence=-1, weights=None
    )


def need_library() -> None:
    """Raises MissingLibraryError where kornia, whose network it is, is not installed."""
    if importlib.util.find_spec("kornia") is None:
        raise MissingLibraryError(
            "LightGlue needs the library kornia: pip install 'reconstruct[kornia]'; a network that "
            "was exported (.onnx) matches without"
        )


def renamed(entries: Any) -> dict[str, Tensor]:
    """A checkpoint with the names that kornia's network has.

    Its authors' files count the attention layers before the blocks, XFeat's has a prefix.
    """
    result = {}
    for key, value in entries.items() if isinstance(entries, Mapping) else ():
        name = str(key).removeprefix("matcher.")
        kind, _, rest = name.partition(".")
        if kind in ("self_attn", "cross_attn"):
            number, _, rest = rest.partition(".")
            name = f"transformers.{number}.{kind}.{rest}"
        result[name] = value
    return result


def architecture(entries: Mapping[str, Tensor]) -> dict[str, int]:
    """Sizes of the network that the weights belong to, as kornia names them.

    Raises KeyError or ValueError if they are not those of a LightGlue on positions alone.
    """
    waves = entries["posenc.Wr.weight"]
    if waves.shape[1] != 2:
        raise ValueError("it needs scales and orientations of keypoints, which are not kept")
    width = entries["log_assignment.0.final_proj.weight"].shape[0]
    projection = entries.get("input_proj.weight")
    layers = {name.split(".")[1] for name in entries if name.startswith("log_assignment.")}
    return {
        "input_dim": width if projection is None else projection.shape[1],
        "descriptor_dim": width,
        "num_heads": width // (2 * waves.shape[0]),
        "n_layers": len(layers),
    }
