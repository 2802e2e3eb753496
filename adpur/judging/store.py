"""Images of a run by column, as safetensors: exact, complete or absent."""

import hashlib
import uuid
from collections.abc import Iterator
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save
from torch import Tensor


class ImageStore:
    """A folder of image batches; a file's name says whose and which images it holds.

    So whoever writes the same batch again writes the same file, and nobody another's.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def add(self, key: str, tensors: dict[str, Tensor]) -> None:
        """Write a batch of named tensors, `index` among them, in one piece; no image, no file."""
        if not len(tensors["index"]):
            return
        which = hashlib.sha256(tensors["index"].numpy().tobytes()).hexdigest()[:12]
        file = self.folder / f"{key}-{which}.safetensors"
        self.folder.mkdir(exist_ok=True)
        part = file.with_suffix(f".{uuid.uuid4().hex}")
        part.write_bytes(save({k: v.contiguous() for k, v in tensors.items()}))
        part.replace(file)

    def read(self, key: str) -> dict[str, Tensor]:
        """All of a key, each image once, sorted by `index`; empty if there is none."""
        parts = [load_file(file) for file in self._files(key)]
        if not parts:
            return {}
        merged = {k: torch.cat([part[k] for part in parts]) for k in parts[0]}
        index, inverse = merged["index"].unique(return_inverse=True)  # type: ignore[no-untyped-call]
        first = torch.stack([(inverse == k).nonzero()[0, 0] for k in range(len(index))])
        return {k: v[first] for k, v in merged.items()}

    def index(self, key: str) -> set[int]:
        """Which images are there; reads no pixels."""
        found: set[int] = set()
        for file in self._files(key):
            with safe_open(file, "pt") as content:
                found.update(content.get_tensor("index").tolist())
        return found

    def _files(self, key: str) -> Iterator[Path]:
        yield from sorted(self.folder.glob(f"{key}-*.safetensors"))
