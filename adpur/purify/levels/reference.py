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

    def __post_init__(self) -> None:
        if not (self.count > 1 and self.sd > 0 and self.high > self.low):
            raise ConfigError(
                f"score norms of {self.count} images with sd {self.sd} and range {self.low} to "
                f"{self.high} say nothing of others; calibrate on more images"
            )


def reference(weights: str, horizon: int = 20, levels: int = 20) -> Reference:
    """The statistics `calibrate` saved beside a diffusion model's weights."""
    file = find_weights(weights) / STATISTICS
    known = [Reference(**entry) for entry in json.loads(file.read_text())] if file.is_file() else []
    for entry in known:
        if (entry.horizon, entry.levels) == (horizon, levels):
            return entry
    have = ", ".join(f"({e.horizon}, {e.levels})" for e in known) or "none"
    raise ConfigError(
        f"{file}: no score norms for (horizon, levels) = ({horizon}, {levels}); saved: {have}. "
        f"Run: adpur calibrate {weights} --horizon {horizon} --levels {levels}"
    )


def save_reference(entry: Reference, folder: Path) -> None:
    """Add an entry to a weights folder, replacing one of the same (horizon, levels)."""
    file = folder / STATISTICS
    known = json.loads(file.read_text()) if file.is_file() else []
    same = (entry.horizon, entry.levels)
    kept = [e for e in known if (e["horizon"], e["levels"]) != same]
    entries = sorted([*kept, asdict(entry)], key=lambda e: (e["horizon"], e["levels"]))
    file.write_text(json.dumps(entries, indent=1, sort_keys=True) + "\n")
