"""Published data sets: where their files are, and how official parts become splits."""

import os
from abc import abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

from torch.utils.data import Dataset

from adpur.errors import ConfigError
from adpur.lit.data.base import Batch, ImageData, Split
from adpur.lit.data.images import Images, held_out
from adpur.lit.data.paths import expanded

Official = Literal["train", "test"]

VALIDATION = 5_000
"""Official training images that become `validation`, where there is no official such split."""


class Published(ImageData):
    """A data set as its authors publish it; validation is held out of the official training images.

    Args:
        root: the folder that holds `holds`; the environment's `variable` by default.
        kwargs: of `ImageData`.
    """

    variable: str
    holds: str
    download = False
    """Whether torchvision may fetch what is missing; a setting of those that it can fetch."""

    def __init__(self, root: str | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.root = root
        self._read: dict[Official, Images] = {}

    @abstractmethod
    def official(self, part: Official) -> Images:
        """Official images under their official rows, test images counting on from training's."""

    def split(self, name: Split) -> Dataset[Batch]:
        """Images in [0, 1].

        Raises:
            ConfigError: where the files are missing or differ from the official ones.
        """
        if name == "test":
            return self._once("test")
        return held_out(self._once("train"), VALIDATION)[name]

    def _once(self, part: Official) -> Images:
        """Looked for on the disk once; another data module looks again."""
        if part not in self._read:
            self._read[part] = self.official(part)
        return self._read[part]

    @property
    def folder(self) -> Path:
        """What `root` or the environment says."""
        asked = self.root or os.environ.get(self.variable)
        if self.download and asked:
            return expanded(asked)
        return located(self.root, self.variable, self.holds)


class Downloadable(Published):
    """A published data set that torchvision can download, when asked.

    Args:
        root: see `Published`.
        download: fetch what is missing into `root`.
        kwargs: of `ImageData`.
    """

    def __init__(self, root: str | None = None, download: bool = False, **kwargs: Any) -> None:
        super().__init__(root, **kwargs)
        self.download = download

    def prepare_data(self) -> None:
        """Download on one process of a node; the others wait for it."""
        if self.download:
            self.official("train"), self.official("test")


def located(root: str | None, variable: str, holds: str) -> Path:
    """`root`, else what the environment's `variable` says, if it holds what it should."""
    root = root or os.environ.get(variable)
    if root is None or not (expanded(root) / holds).exists():
        raise ConfigError(
            f"expected a folder that holds {holds}, got {root or 'none'}; set {variable} to it, "
            "or write `root:` in the data block (nothing is downloaded unasked)"
        )
    return expanded(root)


@contextmanager
def checked(what: str, files: Path) -> Iterator[None]:
    """Torchvision's refusals, of a checksum or of a download, as one line."""
    try:
        yield
    except RuntimeError as error:
        raise ConfigError(
            f"{files} is not the official {what} (a file is missing or its md5 differs); "
            "unpack it again"
        ) from error
    except OSError as error:
        raise ConfigError(f"{files}: {what} cannot be read or downloaded: {error}") from error
