"""What a search leaves behind it: nothing."""

import dataclasses

import pytest
import torch
import torch.nn.functional as F
from hardening import addt
from torch import Tensor

from adpur import (
    CGPO,
    Digits,
    ImagePGD,
    LinfNoise,
    Misdenoised,
    Noise,
    RandomOrder,
    Rescaled,
    ReverseRBGM,
    Standardised,
    Unmapped,
    addt_paper,
    addt_released,
    pretrained,
)
from adpur.addt.case import Case
from adpur.addt.cgpo import Misclassified
from adpur.addt.perturbation import Clean, Mixture, Perturbation
from adpur.keyed.noise import Source
from adpur.types import to_signed

MAPPINGS = [Unmapped(), Rescaled(), Standardised(), ReverseRBGM(), RandomOrder()]
SEARCHES = [
    Clean(), addt_paper(), addt_released(), addt_paper(guide=Misdenoised()), LinfNoise(),
    LinfNoise(ImagePGD(random_start=True), dropout=False), CGPO(dropout=False),
    *(addt_paper(mapping=mapping, steps=2) for mapping in MAPPINGS),
]  # fmt: skip


@pytest.fixture
def case(tmp_path) -> Case:
    """A network in training mode with dropout, but for one frozen weight and one module."""
    denoiser = addt(tmp_path, dropout=0.2).denoiser
    next(denoiser.parameters()).requires_grad_(False)
    next(denoiser.children()).eval()
    x, y, _ = (part[:4] for part in Digits().stacked("train"))
    classifier = pretrained("digits/classifier").classifier
    return Case(to_signed(x), y, torch.tensor([1, 50, 200, 900]), denoiser, classifier)


def state(case: Case) -> list[object]:
    """Flags, modes and gradients of both networks."""
    nets = (case.denoiser, case.classifier)
    flags = [(p.requires_grad, p.grad is None) for net in nets for p in net.parameters()]
    return [*flags, *(m.training for net in nets for m in net.modules())]


def searched(search: Perturbation, case: Case) -> Mixture:
    return search.search(case, Noise(torch.arange(4), source=Source.TRAIN))


class Leaky(Misclassified):
    """The released EDM trainer's search: the loss goes backward through the weights."""

    def losses(self, case: Case, seen, eps: Tensor) -> Tensor:
        for parameter in case.denoiser.parameters():
            parameter.requires_grad_(True)
        again = case.logits(case.restored(eps).x0)
        F.cross_entropy(again, case.y).backward()
        return super().losses(case, seen, eps)


@pytest.mark.parametrize("search", SEARCHES, ids=repr)
def test_no_gradient_flag_or_mode_stays(search: Perturbation, case: Case) -> None:
    before = state(case)
    mixture = searched(search, case)
    assert state(case) == before
    assert not any(v.requires_grad for v in dataclasses.astuple(mixture))


def test_the_test_sees_the_released_leak(case: Case) -> None:
    before = state(case)
    searched(CGPO(guide=Leaky()), case)
    assert state(case) != before


@pytest.mark.parametrize("search", [addt_paper(), LinfNoise()])
def test_a_search_that_fails_gives_the_network_back(search: Perturbation, case: Case) -> None:
    class Broken(torch.nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            raise RuntimeError("out of memory")

    broken = dataclasses.replace(case, classifier=Broken())
    before = state(broken)
    with pytest.raises(RuntimeError, match="out of memory"):
        searched(search, broken)
    assert state(broken) == before


def test_a_search_of_images_gives_the_classifier_back(case: Case) -> None:
    classifier = case.classifier.requires_grad_(True).train()
    before = state(case)
    ImagePGD().against(classifier, case.image, case.y, Noise(torch.arange(4)))
    assert state(case) == before and classifier.training


@pytest.mark.parametrize("search", SEARCHES, ids=repr)
def test_only_dropout_draws_from_the_global_generator(search: Perturbation, case: Case) -> None:
    case.denoiser.eval()
    before = torch.get_rng_state()
    one, two = searched(search, case), searched(search, case)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(one.delta, two.delta)
