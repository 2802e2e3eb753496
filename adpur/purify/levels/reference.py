"""Score-norm statistics of clean images, kept beside the weights they were measured with."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from adpur.errors import ConfigError
from adpur.models.checkpoints.files import find_weights

STATISTICS = "score_norms.json"


@dataclass(frozen=True)
class Reference:
    """Score-norm statistics of clean images, and what they were measured with."""

    mean: float
    sd: float
    low: float
    high: float
    count: int
    horizon: int
    levels: int
    scorer: str
    continuous: bool = False
    noised: bool = True

    def __post_init__(self) -> None:
        if not (self.count > 1 and self.sd > 0 and self.high > self.low):
            raise ConfigError(
                f"score norms of {self.count} images with sd {self.sd} and range {self.low} to "
                f"{self.high} say nothing of others; calibrate on more images"
            )


def reference(
    weights: str, horizon: int = 20, levels: int = 20, continuous: bool = False, noised: bool = True
) -> Reference:
    """The statistics `calibrate` saved beside a diffusion model's weights."""
    file = find_weights(weights) / STATISTICS
    known = _saved(file)
    wanted = (horizon, levels, continuous, noised)
    for entry in known:
        if _measured(entry) == wanted:
            return entry
    have = ", ".join(_told(*_measured(e)) for e in known) or "none"
    raise ConfigError(
        f"{file}: no score norms for (horizon, levels) = {_told(*wanted)}; saved: {have}. "
        f"Run: adpur calibrate {weights} --horizon {horizon} --levels {levels}"
        f"{' --continuous' * continuous}{' --unnoised' * (not noised)}"
    )


def save_reference(entry: Reference, folder: Path) -> None:
    """Add an entry to a weights folder, replacing one that was measured in the same way."""
    file = folder / STATISTICS
    kept = [e for e in _saved(file) if _measured(e) != _measured(entry)]
    entries = [asdict(e) for e in sorted([*kept, entry], key=_measured)]
    file.write_text(json.dumps(entries, indent=1, sort_keys=True) + "\n")


def _saved(file: Path) -> list[Reference]:
    return [Reference(**entry) for entry in json.loads(file.read_text())] if file.is_file() else []


def _measured(entry: Reference) -> tuple[int, int, bool, bool]:
    """How an entry was measured: one of each kind is kept."""
    return (entry.horizon, entry.levels, entry.continuous, entry.noised)


def _told(horizon: int, levels: int, continuous: bool, noised: bool) -> str:
    kinds = ", continuous" * continuous + ", unnoised" * (not noised)
    return f"({horizon}, {levels}{kinds})"
