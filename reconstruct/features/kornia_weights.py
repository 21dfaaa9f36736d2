"""The authors' weights in kornia's networks.

DISK, ALIKED and XFeat are one file each. The models of affine regions are made of networks that
were published one by one, whose files lie in one folder under their authors' names.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from reconstruct.errors import WeightsError
from reconstruct.features.weights import UNREADABLE, read_checkpoint

if TYPE_CHECKING:
    import torch

DERIVED: Final = ("dkd.hw_grid",)
"""Entries of kornia's state dicts that are not learned, and are not in the authors' files."""

PARTS: Final[dict[str, tuple[str, ...]]] = {
    "detector.model": ("keynet_pytorch.pth",),
    "detector.aff": ("AffNet.pth",),
    "descriptor.descriptor": ("HardNet++.pth", "HardNetPP.pth", "checkpoint_liberty_with_aug.pth"),
}
"""A network within a model of affine regions -> names of its file; the first that is there is read.

HardNet++ is the D2-Net paper's; Liberty with augmentation is what kornia downloads.
"""


def fill(network: torch.nn.Module, path: Path) -> None:
    """Load the weights in a file, or in the files of a folder.

    Args:
        network: One of kornia's, as `reconstruct.features.kornia.build` makes them.
        path: The authors' file, a state dict of the whole, or a folder with files of `PARTS`.

    Raises:
        WeightsError: They are missing, or are not those of the network.
    """
    if path.is_dir():
        _fill_parts(network, path)
        return
    entries = read_checkpoint(path)
    if isinstance(entries, Mapping) and isinstance(entries.get("extractor"), Mapping):
        entries = entries["extractor"]  # the layout of DISK's own checkpoints
    own = network.state_dict()
    if isinstance(entries, Mapping):
        if not set(entries) & set(own):  # XFeat's authors publish the network alone
            entries = {f"net.{name}": value for name, value in entries.items()}
        entries = {**{name: own[name] for name in DERIVED if name in own}, **entries}
    _load(network, entries, path)


def _fill_parts(network: torch.nn.Module, folder: Path) -> None:
    modules = dict(network.named_modules())
    parts = {place: names for place, names in PARTS.items() if _learned(modules.get(place))}
    if not parts:
        raise WeightsError(f"{folder}: is a folder; this model's weights are one file")
    for place, names in parts.items():
        path = next((folder / name for name in names if (folder / name).is_file()), None)
        if path is None:
            raise WeightsError(f"{folder}: holds no {' or '.join(names)}, which this model needs")
        checkpoint = read_checkpoint(path)
        entries = checkpoint.get("state_dict") if isinstance(checkpoint, Mapping) else None
        if isinstance(entries, Mapping):
            # Files of before torch 0.4.1 do not count batches, which only training needs.
            own = modules[place].state_dict()
            counts = {k: v for k, v in own.items() if k.endswith("num_batches_tracked")}
            entries = {**counts, **entries}
        _load(modules[place], entries, path)


def _learned(module: torch.nn.Module | None) -> bool:
    return module is not None and any(True for _ in module.parameters())


def _load(module: torch.nn.Module, entries: Any, path: Path) -> None:
    try:
        module.load_state_dict(entries)
    except UNREADABLE as error:
        raise WeightsError(f"{path}: not a state dict of this model ({error})") from error
