"""Files of weights as their authors publish them: where they are, and which they are.

An address names a commit or a release, whose files do not change, but for D2-Net's own. Every copy,
be it the authors' or another, must have the hash that stands here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from reconstruct.features.download import cached_download

_GITHUB: Final = "https://raw.githubusercontent.com"


@dataclass(frozen=True, slots=True)
class Published:
    """A file.

    Attributes:
        source: Its authors' repository.
        known: Hash (hex) of its content, see `cached_download`.
        urls: Where it is: at its authors', and copies.
    """

    source: str
    known: str
    urls: tuple[str, ...]


def _published(
    source: str, base: str, copies: str | None, hashes: Mapping[str, str]
) -> dict[str, Published]:
    """Files that lie side by side.

    Args:
        source: The authors' repository.
        base: Address of their folder.
        copies: Address of a folder of copies; None: there is none.
        hashes: Name -> hash.
    """
    bases = [base] if copies is None else [base, copies]
    return {
        name: Published(source, known, tuple(f"{address}/{name}" for address in bases))
        for name, known in hashes.items()
    }


def _at(source: str, commit: str, folder: str = "") -> tuple[str, str]:
    """A repository of GitHub, and the address of one of its folders in a commit."""
    return source, f"{_GITHUB}/{source}/{commit}{folder}"


def _kornia(name: str) -> str:
    """The address of one of kornia's repositories of copies."""
    return f"https://huggingface.co/kornia/{name}/resolve/main"


FILES: Final[dict[str, Published]] = {
    **_published(
        "mihaidusmanu/d2-net",
        "https://dusmanu.com/files/d2-net",
        f"{_GITHUB}/EHM-Search-Engines/ISEDH-Deep-Learning"
        "/ae7e582f2b15399ce5d1a95e192daaabaae787e3/models",
        {
            "d2_ots.pth": "a4f45657a3f9801629232c54c16eacc59c557c9d",
            "d2_tf.pth": "dbec398db6144a637701504c74e93fb0c42be18c",
            "d2_tf_no_phototourism.pth": "d816a7b686f38904de45780409d51c63eec6901d",
        },
    ),
    **_published(
        *_at("ducha-aiki/affnet", "da7cf51ba09cb92e3cf0f46c12a89881f79e5051", "/pretrained"),
        _kornia("affnet"),
        {"AffNet.pth": "65c8bb2cf71e913818522d09dcc4262bcbcef5d756baa86a41f28526c2d61160"},
    ),
    **_published(
        *_at("Shiaoming/ALIKED", "683d7c65197395c0b3f01ebe76e1084a27e73a65", "/models"),
        _kornia("aliked"),
        {
            "aliked-n16.pth": "5be8704840ed662d9d8c561bf7279c222092674e7eb05fd0feab94899e9d82f2",
            "aliked-n16rot.pth": "ddf3abbf38e86f6a74540d214e1a9712c54b2d8551abc864542199f2347d7332",
            "aliked-n32.pth": "055283fd1624d3ab46a05c3b617b1a79a3f28d1f551737eef2d653e8c8232890",
        },
    ),
    **_published(
        *_at(
            "axelBarroso/Key.Net-Pytorch",
            "74fe0a75998445bb47b74b642b764543b25dc90a",
            "/model/weights",
        ),
        _kornia("keynet"),
        {"keynet_pytorch.pth": "59d3a46d57b439513acf531877fdfaa95eb550ccd10ec462e23d7c1f7a86d52a"},
    ),
    **_published(
        *_at(
            "DagnyT/hardnet",
            "35bc1d79910c4477e61ca486a4712b3b7496d43e",
            "/pretrained/train_liberty_with_aug",
        ),
        _kornia("hardnet"),
        {
            "checkpoint_liberty_with_aug.pth": (
                "1e9a41b19f1dc93c986e91df9aaf5696d1a777ac1d67498492856a65d6f49c16"
            )
        },
    ),
    **_published(
        *_at("cvlab-epfl/disk", "8dc6d4d65b47210f629e21ad1fbfb56944b11696"),
        _kornia("disk"),
        {"depth-save.pth": "9c2ee4ded238892dfa51569941372601e35e4a74aa6f84ea80053d2ab1c07abe"},
    ),
    **_published(
        *_at("verlab/accelerated_features", "e92685f57f8318b18725c5c8c0bd28c7fe188d9a", "/weights"),
        None,
        {
            "xfeat.pt": "0f5187fd7bedd26c7fe6acc9685444493a165a35ecc087b33c2db3627f3ea10b",
            "xfeat-lighterglue.pt": (
                "766102df37f11189efe5b0811d1f47c72b22629b79bfabfcfff9d2a2f84654b8"
            ),
        },
    ),
    **_published(
        "cvg/LightGlue",
        "https://github.com/cvg/LightGlue/releases/download/v0.1_arxiv",
        _kornia("lightglue"),
        {
            "aliked_lightglue.pth": (
                "d975e965b105311a6143194852297dff4f02aea5cc2e10cecfed966ca0e22503"
            ),
            "disk_lightglue.pth": (
                "b5b21d47ea24f2c5e501aec9c91b9716e4c8c3429a4dc1e615c133c4c9378335"
            ),
            "superpoint_lightglue.pth": (
                "6ff7040d0a497fc6639337946d7538dae07428c18f77a067a0b5a960e7cc551a"
            ),
        },
    ),
}
"""Name -> file.

The hashes of AffNet, ALIKED and Key.Net were computed from the authors' repositories at these
commits, those of DISK, XFeat and LighterGlue from copies whose git object is the one there. Those
of LightGlue and HardNet are stated in public by independent projects, two at least for each file,
and all of them the same. D2-Net's authors state none; these are the git objects of what others keep
in their repositories after downloading them: ``d2_tf`` in eight, ``d2_ots`` in four, the third in
two, and each file the same in all of them (2026-11-29).
"""


def published_file(
    name: str, *, cache_dir: Path | None = None, mirrors: Sequence[str] = ()
) -> Path:
    """The path of a file of `FILES` in the cache, downloaded once.

    Args:
        name: Its name.
        cache_dir: Folder of downloads; None: the default.
        mirrors: Base addresses that are tried before its own.

    Raises:
        WeightsError: It cannot be had, or is not the one that is known.
    """
    file = FILES[name]
    urls = [f"{base.rstrip('/')}/{name}" for base in mirrors]
    return cached_download(name, [*urls, *file.urls], file.known, cache_dir)
