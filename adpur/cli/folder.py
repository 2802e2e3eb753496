"""The run folder, before a stage begins."""

from pathlib import Path

from lightning.pytorch.utilities import rank_zero_only


@rank_zero_only
def set_aside(folder: Path) -> None:
    """Move an old run folder out of the way; nothing is deleted."""
    if folder.exists():
        taken = next(
            n for n in range(1, 10_000) if not folder.with_name(f"{folder.name}.{n}").exists()
        )
        folder.rename(folder.with_name(f"{folder.name}.{taken}"))
