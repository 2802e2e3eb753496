"""`adpur fit --dry-run`: what it foretells, what it counts, and that it leaves nothing."""

import re
from pathlib import Path

import pytest
from toy import trainer

from adpur import Digits
from adpur.cli import main
from adpur.lit.fit.estimate import Stopwatch, _validations

LEAN = "{sample_size: 8, in_channels: 1, widths: [8], blocks: [1], groups: 4}"


def test_a_dry_run_of_a_fit_prints_its_parts_and_writes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    words = ["--model.architecture=LeanUNet", f"--model.unet={LEAN}", "--trainer.max_epochs=50"]
    assert main(["fit", "-c", "diffusion_digits", "--dry-run", *words]) == 0
    said = capsys.readouterr().out
    counts = dict(re.findall(r"^(\w[\w ]*?)\s+([\d,]+) x", said, re.M))
    # 1,149 images in batches of 64 are 17 steps; a validation every 25 epochs
    assert counts["optimizer steps"] == "850" and counts["validations"] == "2"
    # at every third validation: none of two
    assert counts["RobustValidation"] == "0" and counts["FrechetDistance"] == "2"
    assert float(re.search(r"in all: ([\d.]+) hours", said)[1]) > 0
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("given", "count"),
    [
        ({"max_epochs": 4}, 4),
        ({"max_epochs": 5, "check_val_every_n_epoch": 2}, 2),
        ({"max_steps": 10, "val_check_interval": 4, "check_val_every_n_epoch": None}, 2),
        ({"max_steps": 10, "val_check_interval": 2}, 4),  # an epoch has 5 batches
        ({"max_epochs": 2, "limit_val_batches": 0}, 0),
    ],
)
def test_validations_are_counted_as_lightning_does_them(
    tmp_path: Path, given: dict, count: int
) -> None:
    """Against a fit that is run to its end."""
    from adpur import ClassifierTraining

    class Count(Stopwatch):
        seen = 0

        def on_train_batch_end(self, trainer, *args):  # type: ignore[no-untyped-def]
            pass

        def on_validation_start(self, trainer, module):  # type: ignore[no-untyped-def]
            self.seen += 1

    watch = Count()
    arguments = {"blocks": 1, "in_channels": 1, "width": 4}
    module = ClassifierTraining(str(tmp_path / "w"), arguments=arguments, shape=(1, 8, 8))
    made = trainer(tmp_path, [watch], num_sanity_val_steps=0, **given)
    made.fit(module, Digits(batch_size=200))
    assert (watch.seen, watch.plan.validations) == (count, count)
    assert watch.plan.steps == made.global_step
    assert _validations(made, made.global_step) == count
