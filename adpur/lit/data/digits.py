"""The embedded data set: scikit-learn's handwritten digits."""

from functools import lru_cache

import numpy as np
import torch
from torch.utils.data import Dataset, TensorDataset

from adpur.lit.data.base import Batch, ImageData, Split

SIZES = {"train": 1149, "validation": 288, "test": 360}


class Digits(ImageData):
    """1,797 real digits of 8x8 grey pixels, split 1149 / 288 / 360, stratified and fixed.

    Every choice (levels, temperatures, eps) is made on `validation`; `test` is only reported.
    """

    shape = (1, 8, 8)
    classes = 10

    def split(self, name: Split) -> Dataset[Batch]:
        """Images `(1, 8, 8)` in [0, 1] on 17 grey levels; `index` is the row of `load_digits`."""
        x, y, rows = _digits()[name]
        return TensorDataset(x, y, rows)  # type: ignore[return-value]


@lru_cache
def _digits() -> dict[str, tuple[torch.Tensor, torch.Tensor, torch.Tensor]]:
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    data = load_digits()
    y, everything = data.target, np.arange(len(data.target))
    rest, test = train_test_split(everything, test_size=SIZES["test"], stratify=y, random_state=0)
    train, validation = train_test_split(
        rest, test_size=SIZES["validation"], stratify=y[rest], random_state=0
    )
    images = torch.tensor(data.images[:, None] / 16, dtype=torch.float32)
    rows = {"train": np.sort(train), "validation": np.sort(validation), "test": np.sort(test)}
    labels = torch.tensor(y, dtype=torch.int64)
    return {
        name: (images[torch.from_numpy(r)], labels[torch.from_numpy(r)], torch.from_numpy(r))
        for name, r in rows.items()
    }
