"""Street View House Numbers, cropped digits."""

from functools import lru_cache
from pathlib import Path

import numpy as np
import torch

from adpur.lit.data.images import Images, Pixels
from adpur.lit.data.paths import stamp
from adpur.lit.data.published import Downloadable, Official, checked


class SVHN(Downloadable):
    """SVHN (Netzer et al. 2011), format 2: 3x32x32, split 68,257 / 5,000 / 26,032.

    Label 0 is the digit 0. The 531,131 extra training images are left out, as in the papers.

    Args:
        root: the folder that holds `train_32x32.mat` and `test_32x32.mat`; $ADPUR_SVHN by default.
        kwargs: of `Downloadable`.
    """

    shape = (3, 32, 32)
    classes = 10
    variable = "ADPUR_SVHN"
    holds = "test_32x32.mat"

    def official(self, part: Official) -> Images:
        """Torchvision checks the md5 of the part's file; test images start at row 73,257."""
        state = stamp(self.folder / f"{part}_32x32.mat")
        return _read(self.folder, part, self.download, state)


TRAIN_IMAGES = 73_257


@lru_cache
def _read(root: Path, part: Official, download: bool, state: object) -> Images:
    from torchvision.datasets import SVHN as Files

    with checked("SVHN", root / f"{part}_32x32.mat"):
        data = Files(root, split=part, download=download)
    before = TRAIN_IMAGES if part == "test" else 0
    held = torch.from_numpy(np.ascontiguousarray(data.data))
    return Pixels(held, torch.from_numpy(data.labels), before + torch.arange(len(held)))
