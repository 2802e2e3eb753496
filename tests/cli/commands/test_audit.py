"""`adpur audit` and the standard protocol, on classifiers of a few lines."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from problems import LinearClassifier, WavyDenoiser, images
from toy import DIFFPURE, Toy, trainer

from adpur import (
    PGD,
    ConfigError,
    Evaluation,
    Identity,
    Networks,
    Robustness,
    Row,
    Seeded,
    StandardV1,
    dw_both,
)
from adpur.cli import main
from adpur.cli.commands.audit import imported, radius
from adpur.models.checkpoints.fingerprint import fingerprint

X = images(6, torch.float32)
Y = LinearClassifier()(X).argmax(1)
SOURCE = """
import torch
from problems import LinearClassifier
net = LinearClassifier()
class Noisy(LinearClassifier):
    def forward(self, x):
        return super().forward(x + 0.1 * torch.randn_like(x))
def plain(x):
    return net(x)
def rounded(x):
    return net((x * 3).round() / 3)
@torch.no_grad()
def silent(x):
    return net(x)
def outside(x):
    return {"logits": net(torch.from_numpy(x.numpy())).numpy()}
def hard(x):
    return torch.nn.functional.one_hot(net(x).argmax(1), 3).float()
def upside(x):
    raise TypeError("upside down")
def numbers(x):
    return net(x).argmax(1)
def nothing(x):
    return {"a": net(x), "b": net(x)}
number = 3
"""


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)  # as the command line does
    monkeypatch.setenv("WANDB_MODE", "disabled")
    (tmp_path / "mine.py").write_text(SOURCE)
    (tmp_path / "bad.py").write_text("1 / 0")
    sys.modules.pop("mine", None)
    np.savez(tmp_path / "six.npz", x=X.numpy(), y=Y.numpy())
    # the protocol's budgets are its own; a test of the command needs fewer steps
    from adpur.judging import protocol

    quick = lambda eps, norm, *_, **__: protocol.APGD(eps=eps, norm=norm, steps=2, eot=2)  # noqa: E731
    monkeypatch.setattr(protocol, "standard", quick)
    monkeypatch.setattr(protocol, "rand", quick)
    square = protocol.Square
    monkeypatch.setattr(protocol, "Square", lambda **_: square(steps=3, draws=2))


@pytest.mark.parametrize("name", ["net", "Noisy", "plain"])
def test_anything_that_classifies_is_audited(name: str, capsys: pytest.CaptureFixture) -> None:
    words = ["audit", f"mine:{name}", "--data", "six.npz", "--eps", "3/10", "--device", "cpu"]
    quick = ["--draws", "3", "--rows", "8", "--trust", "quick"]
    assert main([*words, *quick]) == 0
    said = capsys.readouterr().out
    assert f"adpur-standard-v1, mine.{name}, Linf eps 0.3, 6 images: mean of 3 " in said
    assert "6 images of at least 512; 3 draws of at least 20; trust report quick, not full" in said
    kind = "random" if name == "Noisy" else "deterministic"
    assert f"| T16 draws of a random defence | pass | {kind}; 3 draw(s)" in said


@pytest.mark.parametrize("name", ["rounded", "silent", "outside", "hard"])
def test_what_has_no_gradient_is_asked_alone(name: str, capsys: pytest.CaptureFixture) -> None:
    words = ["audit", f"mine:{name}", "--data", "six.npz", "--eps", "3/10", "--device", "cpu"]
    assert main([*words, "--draws", "3", "--rows", "8", "--trust", "quick"]) == 0
    said = capsys.readouterr().out
    assert (
        f"no gradient of mine:{name} reaches the images: " in said and "v1-square, eps 0.3" in said
    )
    assert "v1-exact" not in said and "adpur-standard-v1" not in said  # not the protocol's number
    assert "| T9 gradient truth | info | no gradient reaches the images" in said


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["mine:none"], "module mine has no 'none'"),
        (["mine:number"], "mine:number is int, not something to call"),
        (["nowhere:net"], "run adpur where nowhere.py is"),
        (["bad:net"], "bad:net: importing bad failed (ZeroDivisionError: division by zero)"),
        (["mine"], "expected module:name, got 'mine'"),
        (["mine:net", "--eps", "a lot"], "--eps: expected a number such as 8/255"),
        (["mine:net", "--data", "gone.npz"], "gone.npz does not exist"),
        (
            ["mine:upside"],
            "cannot take 64 images (1, 4, 4) at once: TypeError: upside down (mine.py",
        ),
        (["mine:numbers"], "class numbers are not enough"),
        (["mine:nothing"], "got dict of a float32 (64, 3), b float32 (64, 3)"),
    ],
)
def test_one_line_says_what_to_do(
    words: list[str], said: str, capsys: pytest.CaptureFixture
) -> None:
    options = ["--data", "six.npz", "--eps", "0.3", "--device", "cpu", "--trust", "quick"]
    assert main(["audit", *options, *words]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert len(error.strip().splitlines()) == 1


def test_a_functions_modules_in_training_mode_are_told(capsys: pytest.CaptureFixture) -> None:
    source = (
        "import torch\nlayer = torch.nn.Sequential(torch.nn.Dropout(), torch.nn.Linear(2, 3))\n"
    )
    source += "@torch.no_grad()\ndef f(x):\n    return layer(x)\n"
    Path("sleepy.py").write_text(source)
    held = imported("sleepy:f")
    said = "adpur: sleepy:f calls `layer` in training mode (Dropout): write layer.eval(), unless"
    assert said in capsys.readouterr().out
    sys.modules["sleepy"].layer.eval()
    assert imported("sleepy:f").told == held.told and capsys.readouterr().out == ""


def test_labels_beyond_the_classes_are_refused(capsys: pytest.CaptureFixture) -> None:
    np.savez("nine.npz", x=X.numpy(), y=np.full(6, 9))
    assert main(["audit", "mine:net", "--data", "nine.npz", "--eps", "0.3", "--device", "cpu"]) == 2
    assert "the classifier has 3 classes, the data 10" in capsys.readouterr().err


def test_no_block_knows_the_noise_of_what_draws_by_itself(tmp_path: Path) -> None:
    nets = {"default": Networks(Seeded(LinearClassifier()), WavyDenoiser())}
    module = Evaluation(nets, {"own": Row(DIFFPURE)}, draws=2, rows=16, trust="none")
    block = Robustness("pgd", PGD(eps=0.1, steps=1), knowledge=dw_both())
    with pytest.raises(ConfigError, match="row 'own' draws by itself, and nobody can know"):
        trainer(tmp_path, [block]).test(module, Toy(4), verbose=False)


def test_bpda_is_for_rows_with_a_purifier(tmp_path: Path) -> None:
    nets = {"default": Networks(LinearClassifier(), WavyDenoiser())}
    rows = {"bare": Row(Identity()), "diffpure": Row(DIFFPURE)}
    module = Evaluation(nets, rows, draws=2, rows=16, trust="none")
    trainer(tmp_path / "run", [StandardV1(0.3)]).test(module, Toy(4), verbose=False)
    blocks = {(c.row, c.attack) for c in module.columns if not c.clean}
    assert blocks == {
        ("bare", "v1-exact"), ("bare", "v1-square"), ("diffpure", "v1-exact"),
        ("diffpure", "v1-square"), ("diffpure", "v1-bpda"),
    }  # fmt: skip
    other = Evaluation(nets, rows, draws=2, rows=16, trust="none")
    lost = trainer(tmp_path / "two", [StandardV1(0.3, only=["other"])])
    with pytest.raises(ConfigError, match="no row named other"):
        lost.test(other, Toy(4))


def test_what_is_named_may_be_a_module_a_factory_or_a_function() -> None:
    assert isinstance(imported("problems:LinearClassifier").found, LinearClassifier)
    assert torch.equal(imported("torch:relu")(-X), torch.zeros_like(X))
    assert radius("8/255") == 8 / 255


def test_a_changed_source_is_another_classifier(tmp_path: Path) -> None:
    plain, rounded = fingerprint(imported("mine:plain")), fingerprint(imported("mine:rounded"))
    assert plain != rounded
    (tmp_path / "mine.py").write_text(SOURCE + "# edited")
    sys.modules.pop("mine")
    assert fingerprint(imported("mine:plain")) != plain
