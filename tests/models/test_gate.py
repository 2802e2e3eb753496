"""What is asked of a foreign network: once before the run, and wherever it answers."""

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from diffusers.utils import BaseOutput
from problems import LinearClassifier, images
from torch import Tensor, nn
from toy import Toy, trainer

from adpur import (
    PGD,
    ConfigError,
    Defense,
    Evaluation,
    Identity,
    Networks,
    Noise,
    Robustness,
    Row,
    Seeded,
    Square,
)
from adpur.judging.judge import Draws, judge
from adpur.judging.trial import Examples
from adpur.lit.test.estimate import estimate
from adpur.models.gate import first_look, lost, refuse_batch_mates
from adpur.models.logits import LogitsError

X = images(6, torch.float32)
INDEX = torch.arange(6) + 40
NET = LinearClassifier()


class Answer(nn.Module):
    """What `change` makes of the logits of a sound network."""

    def __init__(
        self, change: Callable[[Tensor], Any], before: Callable[[Tensor], Tensor] | None = None
    ):
        super().__init__()
        self.net, self.change, self.before = LinearClassifier(), change, before

    def forward(self, x: Tensor) -> Any:
        return self.change(self.net(x if self.before is None else self.before(x)))


class Output(NamedTuple):
    logits: Tensor
    hidden: Tensor


def classified(net: nn.Module, x: Tensor = X) -> Tensor:
    return Networks(net).classify(x, Noise(torch.arange(len(x))))


@pytest.mark.parametrize(
    "change",
    [
        lambda z: z, lambda z: {"logits": z}, lambda z: {"out": z}, lambda z: (z,), lambda z: [z],
        lambda z: OrderedDict(loss=None, logits=z, hidden_states=(z, z)),
        lambda z: (z, (torch.zeros(len(z), 4, 4), None)), lambda z: Output(z, z),
        lambda z: z.detach().numpy(),
    ],
)  # fmt: skip
def test_logits_are_found_wherever_they_are(change: Callable) -> None:
    for net in (Answer(change), Seeded(Answer(change))):
        assert torch.equal(classified(net), NET(X))


@dataclass
class ModelOutput(BaseOutput):  # transformers' is made in the same way
    loss: Tensor | None = None
    logits: Tensor | None = None
    hidden: Any = None


def test_a_model_output_is_taken() -> None:
    found = classified(Answer(lambda z: ModelOutput(logits=z, hidden=(z,))))
    assert torch.equal(found, NET(X))


def test_log_probabilities_are_logits() -> None:
    assert torch.equal(classified(Answer(lambda z: z.log_softmax(1))).argmax(1), NET(X).argmax(1))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda z: z.argmax(1), "class numbers are not enough"),
        (lambda z: z.long(), r"got int64 \(6, 3\)"),
        (lambda z: z[:5], r"got float32 \(5, 3\)"),
        (lambda z: z[:, :, None, None], r"got float32 \(6, 3, 1, 1\)"),
        (lambda z: z[:, :1], "got one a image; a binary classifier's z is"),
        (lambda z: {"features": z, "scores": z}, r"got dict of features float32 \(6, 3\), scores"),
        (lambda z: (z, z), r"got tuple of float32 \(6, 3\), float32"),
        (lambda z: "cat", "got str"),
        (lambda z: None, "got NoneType"),
    ],
)
def test_what_is_no_logits_is_one_line(change: Callable, said: str) -> None:
    with pytest.raises(LogitsError, match=said) as told:
        classified(Answer(change))
    assert "\n" not in str(told.value)


def test_a_network_that_normalises_in_place_spoils_nothing() -> None:
    net = Answer(lambda z: z, lambda x: x.sub_(0.5).div_(0.25))
    x, before = X.clone(), X.clone()
    assert torch.equal(classified(net, x), NET((X - 0.5) / 0.25)) and torch.equal(x, before)
    defense = Defense(Identity(), Networks(net), rows=4)
    levels = defense.levels(x, Noise(INDEX))
    slope = defense.loss_and_grad(x, Noise(INDEX), levels, lambda z, rows: z.sum(1))
    assert slope.grad.any() and torch.equal(x, before)


def test_everything_is_in_evaluation_mode_even_what_was_exported() -> None:
    net = nn.Sequential(nn.Flatten(), nn.Dropout(), nn.Linear(16, 3))
    exported = torch.export.export(
        net.eval(), (X[:2],), dynamic_shapes=({0: torch.export.Dim("n")},)
    )
    net.train()
    nested = nn.Sequential(OrderedDict(deep=nn.Sequential(exported.module()), drop=nn.Dropout()))
    networks = Networks(nested)
    assert not any(part.training for part in networks.modules())
    assert torch.equal(networks.train().classify(X, Noise(INDEX)), net.eval()(X))
    with pytest.raises(
        ConfigError, match=r"expected a classifier that is a torch.nn.Module, got Ex"
    ):
        Networks(exported)  # type: ignore[arg-type]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_what_is_not_finite_is_never_a_class(value: float) -> None:
    def broken(z: Tensor) -> Tensor:
        return torch.where(torch.arange(z.shape[1]) == 1, value, z)

    def on_bright(x: Tensor) -> Tensor:
        return x

    nets = Networks(Answer(broken, on_bright))
    with pytest.raises(LogitsError, match=r"NaN or infinite on 1 image.*dataset rows 40;"):
        first_look(nets, X[:1], INDEX[:1], 4)
    defense, y = Defense(Identity(), nets, rows=4), torch.zeros(6, dtype=torch.int64)
    with pytest.raises(LogitsError, match=r"on 6 image\(s\), dataset rows 40, 41, 42, 43, 44, 45;"):
        judge(defense, Examples(X, y, Noise(INDEX)), Draws(2, 1))


def test_the_images_that_are_not_finite_are_named() -> None:
    class Some(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            z = NET(x)
            same = (x.flatten(1)[:, None] == X[[2, 5]].flatten(1)).all(2).any(1)
            return torch.where(same[:, None], torch.nan, z)

    defense = Defense(Identity(), Networks(Some()), rows=4)
    y = torch.zeros(6, dtype=torch.int64)
    with pytest.raises(LogitsError, match=r"on 2 image\(s\), dataset rows 42, 45; no class"):
        judge(defense, Examples(X, y, Noise(INDEX)), Draws(2, 1, random=False))


class Jpeg(nn.Module):
    """A step through bytes."""

    def forward(self, x: Tensor) -> Tensor:
        from torchvision.io import decode_image, encode_jpeg

        coded = [encode_jpeg((v * 255).byte()) for v in x.detach()]
        return NET(torch.stack([decode_image(c) for c in coded]).to(x) / 255)


class Silent(nn.Module):
    @torch.no_grad()
    def forward(self, x: Tensor) -> Tensor:
        return NET(x)


@pytest.mark.parametrize(
    ("net", "said"),
    [
        (Silent(), "the logits carry none"),
        (Jpeg(), "the logits do not depend on the images through"),
        (Answer(lambda z: z, lambda x: torch.from_numpy(x.numpy())), "the classifier raises: Can't call"),
        (Answer(lambda z: nn.functional.one_hot(z.argmax(1), 3).float()), "the logits carry none"),
        (Answer(lambda z: z, torch.round), "it is zero everywhere"),
    ],
)  # fmt: skip
def test_a_gradient_that_does_not_arrive_is_known_before_the_run(
    net: nn.Module, said: str, tmp_path: Path
) -> None:
    assert said in lost(Networks(net), X, 4)
    nets = {"default": Networks(net)}
    module = Evaluation(nets, {"d": Row(Identity())}, draws=2, rows=8, trust="full", gallery=0)
    square = Robustness("square", Square(eps=0.1, steps=3))
    trainer(tmp_path / "square", [square]).test(module, Toy(4), verbose=False)
    module = Evaluation(nets, {"d": Row(Identity())}, draws=2, rows=8, trust="none", gallery=0)
    blocks = [square, Robustness("pgd", PGD(eps=0.1, steps=1))]
    match = f"block 'pgd', row 'd': no gradient reaches the images: .*{said}.*Square, SPSA, "
    with pytest.raises(ConfigError, match=match):
        trainer(tmp_path / "pgd", blocks).test(module, Toy(4), verbose=False)
    assert not list((tmp_path / "pgd").glob("rows-*"))  # before any work
    module = Evaluation(nets, {"d": Row(Identity())}, draws=2, rows=8, trust="none", gallery=0)
    with pytest.raises(ConfigError, match=match):
        list(estimate(trainer(tmp_path / "dry", blocks), module, Toy(4), 1))


@pytest.mark.parametrize("rows", [1, 2, 3, 64])
def test_a_sound_network_has_its_gradient(rows: int) -> None:
    look = first_look(Networks(LinearClassifier()), X[:1], INDEX[:1], rows)
    assert look == (3, "")


class First(nn.Module):
    """Centres its images by the first one."""

    def forward(self, x: Tensor) -> Tensor:
        return NET(x - x[:1].mean())


@pytest.mark.parametrize(
    ("net", "said"),
    [
        (nn.Sequential(nn.BatchNorm2d(1, track_running_stats=False), LinearClassifier()),
         r"\(BatchNorm2d '(net\.)?0' is without running statistics\)"),
        (First(), "of its batch: no number could be repeated"),
        (Answer(lambda z: z, lambda x: x / x.amax()), "of its batch: no number could be repeated"),
    ],
)  # fmt: skip
def test_batch_mates_are_named_as_what_they_are(net: nn.Module, said: str, tmp_path: Path) -> None:
    for foreign in (net, Seeded(net)):
        with pytest.raises(ConfigError, match=said) as told:
            first_look(Networks(foreign), X[:1], INDEX[:1], 8)
        assert "random" not in str(told.value) and "`rows: 1`" in str(told.value)
    nets = {"default": Networks(net)}
    module = Evaluation(nets, {"d": Row(Identity())}, draws=2, rows=8, trust="none")
    with pytest.raises(ConfigError, match=f"row 'd': the classifier's logits of an image.*{said}"):
        trainer(tmp_path / "r", []).test(module, Toy(8), verbose=False)
    alone = Evaluation(nets, {"d": Row(Identity())}, draws=2, rows=1, trust="none", gallery=0)
    trainer(tmp_path / "one", []).test(alone, Toy(4), verbose=False)
    with pytest.raises(ConfigError, match="other images of its batch"):  # and where no one looked
        judge(
            Defense(Identity(), nets["default"], rows=4),
            Examples(X, torch.zeros(6, dtype=torch.int64), Noise(INDEX)), Draws(3, 1, random=False),
        )  # fmt: skip


def test_what_draws_is_not_called_a_batch_mate() -> None:
    class Noisy(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return NET(x + 0.1 * torch.randn_like(x))

    before = torch.random.get_rng_state(), np.random.get_state()[1].tobytes()  # noqa: NPY002
    for net in (Noisy(), Seeded(Noisy())):
        assert first_look(Networks(net), X[:1], INDEX[:1], 8).classes == 3
        refuse_batch_mates(Networks(net), X, 8)
    assert torch.equal(before[0], torch.random.get_rng_state())
    assert before[1] == np.random.get_state()[1].tobytes()  # noqa: NPY002


def test_the_gate_changes_no_bit_of_a_sound_network() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(1, 8, 3), nn.ReLU(), nn.BatchNorm2d(8), nn.Flatten(), nn.Linear(32, 3)
    )
    image = X.clone().requires_grad_()
    gated = Networks(net).classify(image, Noise(INDEX))
    (grad,) = torch.autograd.grad(gated.square().sum(), image)
    plain = net(image)
    (right,) = torch.autograd.grad(plain.square().sum(), image)
    assert torch.equal(gated, plain) and torch.equal(grad, right)
