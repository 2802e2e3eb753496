"""What a fit cannot work with is told in one line, before its first step."""

from pathlib import Path

import numpy as np
import pytest

from adpur.cli import main

PHOTOS = ["--data=adpur.Given", "--data.file=photos.npz"]
TWELVE = ["--data=adpur.Given", "--data.file=twelve.npz"]
SIZES = "expected images of (1, 8, 8) (channels, height, width), which the model takes"


@pytest.fixture(autouse=True)
def away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WANDB_MODE", "disabled")
    np.savez("photos.npz", x=np.zeros((9, 3, 32, 32), np.uint8), y=np.arange(9))
    np.savez("twelve.npz", x=np.zeros((12, 1, 8, 8), np.uint8), y=np.arange(12))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["addt_digits", *PHOTOS], f"data: {SIZES}, got (3, 32, 32)"),
        (["diffusion_digits", *PHOTOS], f"data: {SIZES}, got (3, 32, 32)"),
        (["classifier_digits", *PHOTOS], f"data: {SIZES}, got (3, 32, 32)"),
        (["addt_digits", *TWELVE], "data: expected at most 10 classes"),
        (["classifier_digits", *TWELVE], "data: expected at most 10 classes"),
        (["addt_digits", "--trainer.precision=bf16-true"], "got bf16-true, in which weights"),
        (["addt_digits", "--model.dropout=1.5"], "dropout: expected a probability below 1"),
        (["classifier_digits", "--trainer.callbacks=adpur.SampleGrid"], "fit of a diffusion model"),
        (["diffusion_digits", "--trainer.callbacks=adpur.SearchFigures"], "a fit of adpur.ADDT"),
        (
            ["ssni_digits", "--trainer.callbacks=adpur.RobustValidation"],
            "RobustValidation belongs in the callbacks of a fit",
        ),
    ],
    ids=lambda v: " ".join(v) if isinstance(v, list) else "",
)
def test_in_one_line(words: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    stage = "test" if words[0] == "ssni_digits" else "fit"
    own = [w for w in words[1:] if "callbacks" in w] or ["--trainer.callbacks=null"]
    rest = [w for w in words[1:] if "callbacks" not in w]
    quiet = ["--trainer.enable_progress_bar=false", "--trainer.logger=false"]
    assert main([stage, "-c", words[0], *own, *rest, *quiet]) == 2
    told = capsys.readouterr().err.strip()
    assert told.startswith("adpur: error: ") and said in told and "\n" not in told


def test_no_warm_up_is_a_setting() -> None:
    assert main([
        "fit", "-c", "diffusion_digits", "--model.warmup=0", "--model.score_norms=null",
        "--trainer.callbacks=null", "--trainer.max_steps=1", "--trainer.limit_val_batches=0",
        "--trainer.logger=false", "--trainer.enable_progress_bar=false",
    ]) == 0  # fmt: skip
