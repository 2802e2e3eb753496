"""ADDT compiled and in mixed precision."""

from pathlib import Path

import pytest
import torch
from hardening import addt, apart, fit
from lightning.pytorch.plugins.precision import MixedPrecision

from adpur import ADDT, CGPO, ConfigError, Digits, Noise, load_denoiser, pretrained
from adpur.addt.case import Case
from adpur.types import to_signed

SHORT = {"max_epochs": 1, "dropout": 0.0}


@pytest.fixture(scope="module")
def eager(tmp_path_factory: pytest.TempPathFactory) -> ADDT:
    return fit(tmp_path_factory.mktemp("eager"), **SHORT)


@pytest.mark.filterwarnings("ignore:The .grad attribute")
@pytest.mark.parametrize("backend", ["eager", pytest.param("aot_eager", marks=pytest.mark.slow)])
def test_a_compiled_fit_is_the_same_fit(backend: str, eager: ADDT, tmp_path: Path) -> None:
    """CGPO's frozen weights, the step's trainable ones and the validation are graphs of their own."""
    torch.compiler.reset()
    compiled = fit(tmp_path, compile=backend, **SHORT)
    assert list(compiled.state_dict()) == list(eager.state_dict())
    moved = apart(eager, addt(tmp_path))
    assert apart(eager, compiled) < 1e-3 * moved
    exported = load_denoiser(tmp_path / "weights").state_dict()
    assert all(torch.equal(v, exported[k]) for k, v in compiled.denoiser.state_dict().items())
    graphs = torch._dynamo.utils.counters["stats"]["unique_graphs"]
    assert graphs >= 3


def test_a_backend_that_is_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"compile: expected one of .*inductor.*, got fast"):
        fit(tmp_path, compile="fast")


def test_a_fit_in_bf16_keeps_its_weights_in_fp32(eager: ADDT, tmp_path: Path) -> None:
    mixed = fit(tmp_path, precision="bf16-mixed", **SHORT)
    assert {p.dtype for p in mixed.parameters()} == {torch.float32}
    start, full, half = (
        torch.nn.utils.parameters_to_vector(m.parameters()) for m in (addt(tmp_path), eager, mixed)
    )
    assert torch.cosine_similarity(full - start, half - start, dim=0) > 0.9


def test_fp16_is_refused(tmp_path: Path) -> None:
    scaled = MixedPrecision("16-mixed", "cpu", torch.amp.GradScaler("cpu"))
    with pytest.raises(ConfigError, match="got 16-mixed; take bf16-mixed"):
        fit(tmp_path, plugins=scaled)


def test_cgpo_finds_the_same_direction_in_bf16() -> None:
    """On the shipped networks: the accumulated gradient, image by image."""
    nets = pretrained("digits/classifier", "digits/diffusion")
    x, y, index = (part[:16] for part in Digits().stacked("train"))
    t = torch.arange(1, 961, 60)
    case = Case(to_signed(x), y, t, nets.denoiser, nets.classifier)
    search, noise = CGPO(steps=1, dropout=False), Noise(index)
    full = search.search(case, noise).found.flatten(1)
    with torch.autocast("cpu", torch.bfloat16):
        half = search.search(case, noise).found.flatten(1)
    assert half.dtype == torch.float32 and not torch.equal(full, half)
    each = torch.cosine_similarity(full, half)
    assert each[t <= 500].min() > 0.99
    assert each.min() > 0.8  # where sigma / alpha multiplies a bf16 eps_hat, and lambda is small


def test_weights_of_few_bits_are_refused(tmp_path: Path) -> None:
    """An average that keeps 0.999 of a bf16 weight never moves."""
    with pytest.raises(
        ConfigError, match=r"bf16-mixed or 64-true, got bf16-true, in which weights are too coarse"
    ):
        fit(tmp_path, precision="bf16-true")
