"""As printed, as released: each form against its equations written out, each distance held."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from adpur import (
    BPDA,
    MSE,
    LevelGradient,
    Linear,
    LinearVP,
    Margin,
    Noise,
    Oracle,
    Purifier,
    Reference,
    ScoreNorm,
    Sigmoid,
    Stream,
    ddpm,
    gdmp,
    gdmp_released,
    scoreopt_n_released,
    scoreopt_o_released,
    vp_sde_released,
)
from adpur.attacks.pgd import PGD, joint
from adpur.diffusion.schedule import VE
from adpur.errors import ConfigError
from adpur.models.checkpoints.fingerprint import fingerprint
from adpur.papers import released
from adpur.papers.released import COSINE, PAIRS, Lab, Pair
from adpur.purify.chain import Chain
from adpur.types import to_signed

LAB = Lab()
BETA = torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64)
ABAR = (1 - BETA).cumprod(0)
BEFORE = torch.cat((torch.ones(1), ABAR[:-1]))
POSTERIOR = BETA * (1 - BEFORE) / (1 - ABAR)
KNOWN = Reference(50, 3, 47, 52, 9, 20, 20, fingerprint(LAB.denoiser), continuous=True)
"""Of norms among which the lab's four lie: two within, one on each side."""
PAGE = Path(__file__).parents[2] / "docs" / "released.md"


def eps_hat(x: Tensor, index: int) -> Tensor:
    """The network itself, told DDPM's index."""
    out: Tensor = LAB.denoiser.net(x, torch.full((len(x),), index))
    return out


def package_ssim(x: Tensor, y: Tensor) -> Tensor:
    """SSIM as the package has it: one number for a batch."""
    ramp = (-((torch.arange(11).double() - 5) ** 2) / (2 * 1.5**2)).exp()
    window = torch.outer(ramp / ramp.sum(), ramp / ramp.sum())[None, None]

    def blur(v: Tensor) -> Tensor:
        return F.conv2d(v, window, padding=5)

    a, b = blur(x), blur(y)
    va, vb, cov = blur(x * x) - a * a, blur(y * y) - b * b, blur(x * y) - a * b
    luminance = (2 * a * b + 1e-4) / (a * a + b * b + 1e-4)
    return (luminance * (2 * cov + 9e-4) / (va + vb + 9e-4)).mean()


def written_gdmp(
    steps: int, rounds: int, like: Callable[[Tensor, Tensor], Tensor], strength: float,
    late: int, clip: bool, large: bool,
) -> Tensor:  # fmt: skip
    """GDMP's loop on all images of the lab at once, in DDPM's indices 0..999."""
    given = x = to_signed(LAB.images)
    table = torch.cat((POSTERIOR[1:2], BETA[1:])) if large else POSTERIOR
    for k in range(rounds):
        keys, i = LAB.noise.fold(stage=k), steps - 1 + late
        x = ABAR[i].sqrt() * x + (1 - ABAR[i]).sqrt() * keys.normal(x, Stream.FORWARD)
        for i in range(steps - 1, -1, -1):
            at = keys.fold(step=i + 1)
            with torch.no_grad():
                x0 = (x - (1 - ABAR[i]).sqrt() * eps_hat(x, i)) / ABAR[i].sqrt()
            x0 = x0.clamp(-1, 1) if clip else x0
            mean = BETA[i] * BEFORE[i].sqrt() / (1 - ABAR[i]) * x0
            mean = mean + (1 - BEFORE[i]) * (1 - BETA[i]).sqrt() / (1 - ABAR[i]) * x
            target = ABAR[i].sqrt() * given
            target = target + (1 - ABAR[i]).sqrt() * at.normal(x, Stream.GUIDANCE)
            moving = x.detach().requires_grad_()
            (pull,) = torch.autograd.grad(like(moving, target), moving)
            scale = (1 - ABAR[i]).sqrt() / (8.0 * 2 / 255 / 3 / strength * ABAR[i].sqrt())
            x = mean + table[i] * scale * pull
            x = x + (i > 0) * table[i].sqrt() * at.normal(x, Stream.REVERSE)
    return x


def mse_alone(x: Tensor, y: Tensor) -> Tensor:
    return -((x - y) ** 2).flatten(1).mean(1).sum()


def mse_of_batch(x: Tensor, y: Tensor) -> Tensor:
    return -F.mse_loss(x, y)


def test_gdmp_is_the_papers_with_the_original_guide() -> None:
    wanted = written_gdmp(12, 3, mse_alone, LAB.scale, 0, clip=False, large=False)
    found = LAB.purified(gdmp(12, 3, guidance=MSE(LAB.scale)))
    assert torch.allclose(found, wanted, rtol=1e-9, atol=1e-11)
    own = LAB.purified(gdmp(12, 3, guidance=MSE(LAB.scale), original=False))
    assert (own - wanted).abs().max() > 1e-2


@pytest.mark.parametrize("large", [True, False])
@pytest.mark.parametrize("kind", ["mse", "ssim"])
def test_gdmp_as_released(kind: str, large: bool) -> None:
    like, strength = (mse_of_batch, LAB.scale) if kind == "mse" else (package_ssim, 50.0)
    wanted = written_gdmp(12, 2, like, strength, 1, clip=True, large=large)
    row = gdmp_released(12, 2, kind, strength, large=large, batch=LAB.count)  # type: ignore[arg-type]
    assert torch.allclose(LAB.purified(row), wanted.clamp(-1, 1), rtol=1e-9, atol=1e-11)


def test_the_vp_sde_as_released() -> None:
    x, schedule = to_signed(LAB.images), LinearVP()
    denoiser, last, count = LAB.denoiser.on(schedule), 1e-5, 10
    x = ABAR[99].sqrt() * x + (1 - ABAR[99]).sqrt() * LAB.noise.normal(x, Stream.FORWARD)
    for left in range(count, 0, -1):
        t, s = (last + k / count * (0.1 - last) for k in (left, left - 1))
        beta, now = 0.1 + 19.9 * t, torch.full((len(x),), t, dtype=torch.float64)
        with torch.no_grad():
            score = denoiser.score(x, now)
        z = LAB.noise.fold(step=left).normal(x, Stream.REVERSE)
        x = x + (t - s) * (0.5 * beta * x + beta * score) + (beta * (t - s)) ** 0.5 * z
    found = LAB.purified(vp_sde_released(0.1, steps=count))
    assert torch.allclose(found, x, rtol=1e-9, atol=1e-11)


def ssni(curve: Sigmoid | Linear, count: int = 20, twice: bool = True) -> Purifier:
    """SSNI as released over DDPM in `count` steps, with the reference `KNOWN`."""
    norm = ScoreNorm(continuous=True)
    return released.released(ddpm(100, steps=count), curve, norm, KNOWN, twice)


def written_eps(lab: Lab) -> Tensor:
    """||EPS|| as in EPS-AD: the norm of the mean of 20 scores, at t / 1000 of the VP-SDE."""
    x, total = to_signed(lab.images), torch.zeros_like(lab.images)
    denoiser = lab.denoiser.on(LinearVP())
    for k in range(1, 21):
        t = torch.full((len(x),), k / 1000, dtype=torch.float64)
        log = -0.25 * t[0] ** 2 * 19.9 - 0.5 * t[0] * 0.1
        z = lab.noise.fold(step=k).normal(x, Stream.LEVEL)
        with torch.no_grad():
            total += denoiser.score(log.exp() * x + (1 - (2 * log).exp()).sqrt() * z, t)
    return (total / 20).flatten(1).norm(dim=1)


def written_ssni(t: Tensor, count: int, b: int) -> Tensor:
    """SSNI's forward from rounded levels `t`: DDIM of eta 1 along ceil(k t / count) - 1 + b."""
    done = []
    for row, level in enumerate(t.tolist()):
        x, keys = to_signed(LAB.images[row : row + 1]), LAB.noise[row : row + 1]
        start = max(int(level) - 1, 0)
        x = ABAR[start].sqrt() * x + (1 - ABAR[start]).sqrt() * keys.normal(x, Stream.FORWARD)
        steps = [max(-(-k * int(level) // count) - 1, 0) + b for k in range(1, count + 1)]
        left = len(set(steps))  # calls that repeat a time change nothing: told below
        for i, j in zip(reversed(steps), reversed([-1, *steps[:-1]]), strict=True):
            at, to = ABAR[i], ABAR[j] if j >= 0 else torch.tensor(1.0).double()
            with torch.no_grad():
                e = eps_hat(x, i)
            x0 = (x - (1 - at).sqrt() * e) / at.sqrt()
            c1 = ((1 - at / to) * (1 - to) / (1 - at)).sqrt()
            moved = to.sqrt() * x0 + (1 - to - c1**2).sqrt() * e
            if i == j:
                assert torch.allclose(moved, x, rtol=1e-12)
                continue
            x = moved + c1 * keys.fold(step=left).normal(x, Stream.REVERSE)
            left -= 1
        done.append(x)
    return torch.cat(done)


@pytest.mark.parametrize("count", [20, 105])
def test_ssni_n_as_released(count: int) -> None:
    row = ssni(Sigmoid(2.0, bias=5), count)
    away = (written_eps(LAB) - KNOWN.mean) / 2.0
    t = (torch.sigmoid(away) * (99 + 5)).round()
    assert t.min() < 20 < t.max()  # fewer steps than calls, and more
    wanted = written_ssni(t, count, 0)
    assert torch.allclose(LAB.purified(row), wanted, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("twice", [True, False])
@pytest.mark.parametrize("batch", [True, False])
def test_ssni_l_as_released(batch: bool, twice: bool) -> None:
    row = ssni(Linear(5, batch), 20, twice)
    n, low, high = written_eps(LAB), KNOWN.low, KNOWN.high
    assert n.max() > high and n.min() < low  # the batch has the extremes
    if batch:
        low, high = n.min(), n.max()  # type: ignore[assignment]
    t = ((n.clamp(low, high) - low) * 99 / (high - low) + 5).round()
    wanted = written_ssni(t, 20, 5 if twice else 0)
    assert torch.allclose(LAB.purified(row), wanted, rtol=1e-9, atol=1e-10)


def test_dependence_on_batch_mates_is_asked_for_and_refused_where_it_cannot_be() -> None:
    def levels(batch: bool, part: slice) -> Tensor:
        defense = LAB.defense(ssni(Linear(5, batch)))
        return defense.levels(LAB.images[part], LAB.noise[part]).t[0]

    assert torch.allclose(levels(False, slice(4))[:1], levels(False, slice(1)))
    assert not torch.allclose(levels(True, slice(4)), levels(False, slice(4)), atol=0.1)
    row = ssni(Linear(5, batch=True))
    with pytest.raises(ConfigError, match="batch: false"):
        LevelGradient(through=True).check(row)
    with pytest.raises(ConfigError, match="Linear batch"):
        Chain([row], recompute=True)


@pytest.mark.parametrize("kind", ["o", "n"])
def test_scoreopt_as_released_under_torchs_adam(kind: str) -> None:
    """The mean loss of the whole batch, in torch's own Adam, whose 1e-8 sees it."""
    x, sigma, steps, lr = to_signed(LAB.images), 0.4, 4, 0.05
    denoiser, at = LAB.denoiser.on(VE()), torch.full((len(x),), 0.4, dtype=torch.float64)
    e = LAB.noise.fold(step=1).normal(x, Stream.FORWARD)
    z = (x if kind == "o" else x + sigma * e).clone().requires_grad_()
    adam = torch.optim.Adam([z], lr=lr)
    for left in range(steps, 0, -1):
        if kind == "o":
            e1 = LAB.noise.fold(step=3 * left + 1).normal(x, Stream.OPTIMISE)
            loss = F.mse_loss(denoiser(z + sigma * e1, at), z)
        else:
            loss = F.mse_loss((z - denoiser(z, at)) / sigma, e)
        adam.zero_grad()
        loss.backward()
        adam.step()
    wanted = z.detach() if kind == "o" else denoiser(z.detach(), at).detach()
    if kind == "o":
        row = scoreopt_o_released(sigma, 0.0, lr, steps, batch=LAB.count)
    else:
        row = scoreopt_n_released(sigma, lr, steps, batch=LAB.count)
    assert torch.allclose(LAB.purified(row), wanted.clamp(-1, 1), rtol=1e-9, atol=1e-10)


def test_mean_logits_is_the_cross_entropy_of_mean_logits() -> None:
    row, y = ddpm(100, steps=2), torch.arange(4) % 3
    oracle = Oracle(LAB.defense(row), row, y, LAB.noise)
    x = LAB.images.clone().requires_grad_()
    logits = oracle.defense(x.repeat(3, 1, 1, 1), oracle._keys(0, 3)).logits.view(3, 4, -1)
    loss = F.cross_entropy(logits.mean(0), y, reduction="none")
    (wanted,) = torch.autograd.grad(loss.sum(), x)
    value, grad = joint(oracle, LAB.images, 0, 3).value_and_grad(LAB.images, 0, 3)
    assert torch.allclose(value, loss, rtol=1e-9) and torch.allclose(grad, wanted, rtol=1e-9)
    towards = joint(oracle.towards((y + 1) % 3), LAB.images, 0, 3)
    aimed = -F.cross_entropy(logits.mean(0), (y + 1) % 3, reduction="none")
    assert torch.allclose(towards.value_and_grad(LAB.images, 0, 3)[0], aimed, rtol=1e-9)
    with pytest.raises(ConfigError, match="leave one"):
        PGD(mean_logits=True, loss=Margin())
    straight = Oracle(LAB.defense(row), BPDA().view(row), y, LAB.noise)
    plain = PGD(steps=1, eot=3, random_start=False).run(straight, LAB.images)
    assert not torch.equal(PGD(steps=1, eot=3, random_start=False, mean_logits=True).run(
        straight, LAB.images), plain)  # fmt: skip


def numbers(text: str) -> list[float]:
    return [float(v) for v in re.findall(r"\d*\.?\d+(?:e-\d+)?", text)]


@pytest.mark.parametrize("pair", PAIRS, ids=lambda p: f"{p.method}, {p.released}")
def test_a_distance_is_what_the_page_says_and_near_what_the_authors_code_gave(pair: Pair) -> None:
    """Near: another U-Net and other images, so within a factor of four of that range."""
    found = pair.measure()
    start = f"| {pair.method} | {pair.printed} | {pair.released} | "
    (line,) = (v for v in PAGE.read_text().splitlines() if v.startswith(start))
    told, unit, beside = line.removeprefix(start).strip("| ").split(" | ")
    assert (unit, beside) == (pair.unit, pair.beside)
    assert found == pytest.approx(float(told), rel=0.08)
    if pair.unit != COSINE and (known := numbers(pair.beside)):
        assert min(known) / 4 < found < 4 * max(known)


def test_the_small_network_is_the_same_everywhere() -> None:
    x = Noise(torch.arange(2)).normal(torch.zeros(2, 1, 8, 8, dtype=torch.float64), Stream.TIME)
    first, again = (released.small_unet()(x, torch.tensor([3, 80])) for _ in range(2))
    assert torch.equal(first, again)
