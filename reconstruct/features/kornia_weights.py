"""The authors' weights in kornia's networks.

DISK, ALIKED and XFeat are one file each. The models of affine regions are made of networks that
were published one by one, whose files lie in one folder under their authors' names.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from reconstruct.errors import WeightsError
from reconstruct.features import published
from reconstruct.features.published import published_file
from reconstruct.features.weights import UNREADABLE, read_checkpoint
from reconstruct.features.weights_file import checked_tensors

if TYPE_CHECKING:
    import torch

FILES: Final[dict[str, str]] = {
    "disk": "depth-save.pth",
    "aliked-n16": "aliked-n16.pth",
    "aliked-n16rot": "aliked-n16rot.pth",
    "aliked-n32": "aliked-n32.pth",
    "xfeat": "xfeat.pt",
}
"""Model -> its authors' one file."""

PARTS: Final[dict[str, tuple[str, ...]]] = {
    "detector.model": ("keynet_pytorch.pth",),
    "detector.aff": ("AffNet.pth",),
    "descriptor.descriptor": ("HardNet++.pth", "HardNetPP.pth", "checkpoint_liberty_with_aug.pth"),
}
"""A network within a model of affine regions -> names of its file; the first that is there is read.

HardNet++ is the D2-Net paper's; Liberty with augmentation is kornia's, and what is downloaded.
"""

NOT_LEARNED: Final = ("dkd.hw_grid", "detector.scale_pyr.", "detector.ori.", "num_batches_tracked")
"""Parts of the names of entries that kornia's state dicts have and the authors' files may lack."""


def fill_published(network: torch.nn.Module, model: str) -> None:
    """Load the weights that the authors publish, downloaded once.

    Args:
        network: As in `fill`.
        model: As in `fill`.

    Raises:
        WeightsError: A file cannot be had, or is not the one that is known.
    """
    if model in FILES:
        fill(network, model, published_file(FILES[model]))
        return
    for module, names in _parts(network):
        name = next(name for name in names if name in published.FILES)
        _fill_part(module, published_file(name), name)


def fill(network: torch.nn.Module, model: str, path: Path) -> None:
    """Load the weights in a file, or in the files of a folder.

    Args:
        network: kornia's, as `reconstruct.features.kornia.build` makes it.
        model: Its name in the settings.
        path: The authors' file (`FILES`), folder of files (`PARTS`), or a state dict of the whole.

    Raises:
        WeightsError: They are missing, or are not those of the network.
    """
    if not path.exists():
        raise WeightsError(f"{path}: no such weights file; give the path of {_wanted(model)}")
    if path.is_dir():
        if model in FILES:
            raise WeightsError(f"{path}: is a folder; give the path of {_wanted(model)}")
        _fill_parts(network, path)
        return
    entries = read_checkpoint(path)
    if isinstance(entries, Mapping) and isinstance(entries.get("extractor"), Mapping):
        entries = entries["extractor"]  # the layout of DISK's own checkpoints
    if isinstance(entries, Mapping) and not set(entries) & set(network.state_dict()):
        entries = {f"net.{name}": value for name, value in entries.items()}  # XFeat's have no net.
    _load(network, entries, path, _wanted(model))


def _wanted(model: str) -> str:
    if model not in FILES:
        return "a state dict of the whole, or a folder with its authors' files"
    return f"{FILES[model]} ({published.FILES[FILES[model]].source})"


def _parts(network: torch.nn.Module) -> list[tuple[torch.nn.Module, tuple[str, ...]]]:
    modules = dict(network.named_modules())
    return [(modules[place], names) for place, names in PARTS.items() if place in modules]


def _fill_parts(network: torch.nn.Module, folder: Path) -> None:
    for module, names in _parts(network):
        path = next((folder / name for name in names if (folder / name).is_file()), None)
        if path is None:
            raise WeightsError(f"{folder}: holds no {' or '.join(names)}, which this model needs")
        _fill_part(module, path, names[0])


def _fill_part(module: torch.nn.Module, path: Path, wanted: str) -> None:
    checkpoint = read_checkpoint(path)
    entries = checkpoint.get("state_dict") if isinstance(checkpoint, Mapping) else None
    _load(module, entries, path, wanted)


def _load(module: torch.nn.Module, entries: Any, path: Path, wanted: str) -> None:
    own = module.state_dict()
    learned = {
        name: tuple(value.shape)
        for name, value in own.items()
        if not any(part in name for part in NOT_LEARNED)
    }
    found = checked_tensors(entries, learned, path, wanted)
    rest = {name: entries.get(name, own[name]) for name in own.keys() - learned.keys()}
    try:
        module.load_state_dict(found | rest)
    except UNREADABLE as error:
        raise WeightsError(f"{path}: not in the layout of {wanted} ({error})") from error
