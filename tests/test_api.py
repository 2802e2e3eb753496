"""`adpur.evaluate` against a run of `adpur test`, bit by bit."""

from pathlib import Path

import pytest
import torch
from problems import LinearClassifier, WavyDenoiser
from toy import ATTACK, DIFFPURE, SSNI, Toy, evaluation, run

from adpur import (
    BPDA,
    ConfigError,
    Evaluation,
    Identity,
    Networks,
    Robustness,
    Row,
    evaluate,
    replay,
)
from adpur.judging.scoreboard import Column
from adpur.models.keyed import Seeded

X, Y, INDEX = (torch.stack(part) for part in zip(*Toy(12).split("test"), strict=True))
ASKED = {"draws": 3, "index": INDEX}


def test_its_numbers_are_those_of_a_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a defence, clean and attacked, on more images than are judged at once."""
    monkeypatch.setattr("adpur.api.AT_ONCE", 7)
    rows = {"diffpure": Row(DIFFPURE), "ssni": Row(SSNI)}
    blocks = [
        Robustness("pgd", ATTACK, eps=[0.1, 0.3]),
        Robustness("bpda", ATTACK, BPDA(), only=["ssni"]),
        Robustness("replay", ATTACK, knowledge=replay(2), only=["diffpure"]),
    ]
    module = run(tmp_path, evaluation(defenses=rows), Toy(12), callbacks=blocks)
    made = {
        Column("diffpure"): {},
        Column("diffpure", "pgd", 0.1): {"attack": ATTACK, "eps": 0.1},
        Column("ssni", "pgd", 0.3): {"attack": ATTACK},
        Column("ssni", "bpda", 0.3): {"attack": ATTACK, "gradient": BPDA()},
        Column("diffpure", "clean (replay)"): {"knowledge": replay(2)},
        Column("diffpure", "replay", 0.3): {"attack": ATTACK, "knowledge": replay(2)},
    }
    for column, kwargs in made.items():
        own = evaluate(module.defenses[column.row], X, Y, **ASKED, **kwargs)
        assert own.scores == module.outcomes[column].scores, column


def test_any_classifier_is_taken_as_adpur_audit_takes_it(tmp_path: Path) -> None:
    """Of a module, and of a function that draws from torch's own generator.

    One row a call: what such a function draws depends on the images it is asked for together, and
    those on the number of workers.
    """

    def noisy(x: torch.Tensor) -> torch.Tensor:
        return net(x + 0.2 * torch.randn_like(x))

    class Noisy(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return noisy(x)

    net = LinearClassifier()
    for kind, model in ((LinearClassifier(), LinearClassifier()), (Noisy(), noisy)):
        nets = {"default": Networks(Seeded(kind), WavyDenoiser())}
        module = Evaluation(nets, {"net": Row(Identity())}, draws=3, rows=1, trust="none")
        folder = tmp_path / type(kind).__name__
        run(folder, module, Toy(12), callbacks=[Robustness("pgd", ATTACK)])
        own = evaluate(model, X, Y, ATTACK, rows=1, **ASKED)
        assert own.scores == module.outcomes[Column("net", "pgd", 0.3)].scores


def test_a_classifier_is_left_as_it_was() -> None:
    net = LinearClassifier().train()
    before = [(p.requires_grad, p.grad) for p in net.parameters()]
    with torch.inference_mode():
        evaluate(net, X[:4], Y[:4], ATTACK, draws=1)
    assert net.training and [(p.requires_grad, p.grad) for p in net.parameters()] == before


@pytest.mark.parametrize(
    ("kwargs", "said"),
    [
        ({"y": Y[:3]}, "a label and a dataset row of its own"),
        ({"index": torch.zeros(4, dtype=torch.int64)}, "4 images, 4 labels and 1 rows"),
        ({"y": torch.full((4,), 3)}, r"expected labels in 0\.\.2, got 3\.\.3"),
        ({"x": 255 * X[:4]}, r"expected images in \[0, 1\]"),
        ({"eps": 0.1}, "expected an attack with eps 0.1"),
        ({"attack": ATTACK, "knowledge": replay()}, "nobody can know that noise"),
        ({"attack": ATTACK, "eps": -1.0}, "PGD eps must be >= 0"),
    ],
)
def test_what_means_nothing_is_refused(kwargs: dict, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        evaluate(LinearClassifier(), **{"x": X[:4], "y": Y[:4], **kwargs})
