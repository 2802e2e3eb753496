"""CIFAR-10 and CIFAR-100 as their authors publish them."""

from functools import lru_cache
from pathlib import Path
from typing import Any

import torch

from adpur.lit.data.images import Images, Pixels
from adpur.lit.data.paths import stamp
from adpur.lit.data.published import Downloadable, Official, checked


class Cifar10(Downloadable):
    """CIFAR-10 (Krizhevsky 2009): 60,000 images of 3x32x32, split 45,000 / 5,000 / 10,000.

    The validation images are a fixed stratified choice of the official training images; the test
    images are the official ones, from row 50,000 on.

    Args:
        root: the folder that holds `cifar-10-batches-py`; $ADPUR_CIFAR10 by default.
        kwargs: of `Downloadable`.
    """

    shape = (3, 32, 32)
    classes = 10
    variable = "ADPUR_CIFAR10"
    holds = "cifar-10-batches-py"

    def official(self, part: Official) -> Images:
        """Torchvision checks every md5."""
        from torchvision.datasets import CIFAR10

        return _read(CIFAR10, "CIFAR-10", self.folder, part, self.download)


class Cifar100(Downloadable):
    """CIFAR-100 (Krizhevsky 2009) with its 100 fine labels; otherwise as `Cifar10`.

    Args:
        root: the folder that holds `cifar-100-python`; $ADPUR_CIFAR100 by default.
        kwargs: of `Downloadable`.
    """

    shape = (3, 32, 32)
    classes = 100
    variable = "ADPUR_CIFAR100"
    holds = "cifar-100-python"

    def official(self, part: Official) -> Images:
        """Torchvision checks every md5."""
        from torchvision.datasets import CIFAR100

        return _read(CIFAR100, "CIFAR-100", self.folder, part, self.download)


def _read(kind: Any, what: str, root: Path, part: Official, download: bool) -> Images:
    files = (name for name, _ in (*kind.train_list, *kind.test_list))
    state = stamp(*(root / kind.base_folder / name for name in files))
    return _held(kind, what, root, part, download, state)


@lru_cache
def _held(
    kind: Any, what: str, root: Path, part: Official, download: bool, state: object
) -> Images:
    before = 0 if part == "train" else len(_held(kind, what, root, "train", download, state))
    with checked(what, root / kind.base_folder):
        data = kind(root, train=part == "train", download=download)
    held = torch.from_numpy(data.data).permute(0, 3, 1, 2).contiguous()
    return Pixels(held, torch.tensor(data.targets), before + torch.arange(len(held)))
