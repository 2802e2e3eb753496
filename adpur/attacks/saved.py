"""Adversarial images made before, scored again."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from adpur.attacks.attack import Attack, check_budget
from adpur.errors import ConfigError
from adpur.threat.ball import Linf, Threat
from adpur.threat.oracle import Oracle


@dataclass(frozen=True)
class Saved(Attack):
    """The images another attack left in safetensors files, by dataset row.

    Each file holds `index` `(n,)` and `adversarial` `(n, C, H, W)` in [0, 1], as a run's own do.
    They are projected and judged like any attack's. A run is identified by what the files hold,
    not by where they are.

    Args:
        path: a file, or a folder of them.
        eps: radius they are projected to.
        norm: Linf, L2 or Flow.

    Raises:
        ConfigError: if there is no such file, an image that is evaluated is not there, or it is
            there twice and differs, as in the folder of a run that stored several columns.
    """

    climbs = False

    path: str = field(compare=False)
    eps: float = 8 / 255
    norm: Threat = Linf()
    sha256: str = field(init=False)

    def __post_init__(self) -> None:
        check_budget(self)
        digests = [
            _digest(file, file.stat().st_size, file.stat().st_mtime_ns) for file in self.files()
        ]
        object.__setattr__(self, "sha256", hashlib.sha256("".join(digests).encode()).hexdigest())

    def run(self, oracle: Oracle, x: Tensor) -> Tensor:
        """See the class."""
        wanted = oracle.noise.index.tolist()
        found = self._found(set(wanted))
        if missing := sorted(set(wanted) - found.keys()):
            told = ", ".join(map(str, missing[:8])) + (", ..." if len(missing) > 8 else "")
            raise ConfigError(
                f"Saved: {self.path} lacks {len(missing)} of the {len(wanted)} images of a batch: "
                f"dataset rows {told}; evaluate the images that were attacked"
            )
        images = torch.stack([found[i] for i in wanted])
        if images.shape != x.shape or not images.is_floating_point():
            raise ConfigError(
                f"Saved: expected floating-point images {tuple(x.shape[1:])}, "
                f"got {images.dtype} {tuple(images.shape[1:])} in {self.path}"
            )
        return self.norm.admitted(images.to(x), x, self.eps).image

    def files(self) -> list[Path]:
        """The safetensors files, sorted by name."""
        path = Path(self.path).expanduser()
        files = sorted(path.glob("*.safetensors")) if path.is_dir() else [path]
        if not files or not files[0].is_file():
            raise ConfigError(
                f"Saved: expected a safetensors file or a folder of them, found none at {path}"
            )
        return files

    def _found(self, wanted: set[int]) -> dict[int, Tensor]:
        found: dict[int, Tensor] = {}
        for index, image in self._images(wanted):
            if not torch.equal(found.setdefault(index, image), image):
                raise ConfigError(
                    f"Saved: {self.path} holds different images of dataset row {index}; name the "
                    "files of one attack at one eps"
                )
        return found

    def _images(self, wanted: set[int]) -> Iterator[tuple[int, Tensor]]:
        for file in self.files():
            try:
                with safe_open(file, "pt") as held:
                    images = held.get_slice("adversarial")
                    for place, index in enumerate(held.get_tensor("index").tolist()):
                        if index in wanted:
                            yield index, images[place]
            except SafetensorError as error:
                raise ConfigError(
                    f"Saved: {file} is not a safetensors file with index and adversarial ({error})"
                ) from error


@lru_cache
def _digest(file: Path, size: int, changed: int) -> str:
    """sha256 of a file; read once, for an attack is copied for every batch and radius."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
