"""Checks before the run: the null attack, randomness, gradients, logits."""

# ruff: noqa: NPY002 - numpy's global generator is what is watched

import random
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from adpur.attacks.attack import Attack, changed
from adpur.judging.judge import judge
from adpur.judging.trial import Trial
from adpur.keyed.noise import Stream
from adpur.models.gate import logits_in_calls, lost
from adpur.models.keyed import Seeded, seeded
from adpur.threat.compare import gradient_cosine
from adpur.threat.losses import Margin
from adpur.trust.finding import Evidence, Grade, Measured, Probe, graded
from adpur.types import expand

SEED = 20_261_121
"""A state of the global generators that no attack happens to set."""
LENGTHS = (1e-2, 2e-3, 3e-2, 4e-4)
"""L2 lengths of a central difference, tried until one agrees: none suits fp32 everywhere."""
ALLOWED = 0.05
"""Relative error of a derivative."""


class NullAttack(Probe):
    """The whole pipeline at eps 0 gives the clean answers: an equality, not a matter of luck."""

    check = "T2"
    title = "null attack equals clean"
    means = "a number comes out that no perturbation made"
    advice = "an attack must draw through its oracle and leave judgement to adpur"

    def probe(self, seen: Evidence) -> Measured:
        """Compare predictions on three evaluation draws."""
        known = seen.trial.knowledge.each()[0]
        trial = replace(_brief(seen.trial, eps=lambda eps: 0.0, steps=lambda n: 1), knowledge=known)
        few = seen.draws._replace(evaluate=min(seen.draws.evaluate, 3), select=1)
        unattacked = Trial(seen.deployed, knowledge=known)
        null, clean = (
            judge(seen.deployed, seen.images, few, t).scores for t in (trial, unattacked)
        )
        differ = sum(a.predictions != b.predictions for a, b in zip(null, clean, strict=True))
        return graded(differ > 0, f"{differ} of {len(null)} images differ", Grade.FAIL)


class Isolation(Probe):
    """An attack moves no global generator of torch, numpy or Python."""

    check = "T4"
    title = "global randomness untouched"
    means = "the attack reseeds whatever draws from that generator next, the defence included"
    advice = "draw from the oracle's keyed noise: oracle.noise.normal(x, Stream.ATTACK)"

    def probe(self, seen: Evidence) -> Measured:
        """Compare states before and after one step, from states that no reseeding gives."""
        with seeded(SEED, seen.images.x.device):
            before = _generators()
            _run(_brief(seen.trial, steps=lambda n: 1), seen)
            after = _generators()
        moved = [name for name in before if before[name] != after[name]]
        return graded(bool(moved), f"{', '.join(moved) or 'none'} moved", Grade.FAIL)


class Determinism(Probe):
    """The same keys give the same image, whatever shares its batch."""

    check = "T5"
    title = "same image in any batch"
    means = "the result depends on the batch: it cannot be resumed or repeated elsewhere"
    advice = "key noise by dataset row, and decide nothing by statistics of the batch"

    def probe(self, seen: Evidence) -> Measured:
        """Attack all, then the second half alone, and compare bits."""
        trial, half = _brief(seen.trial), slice(len(seen.images.x) // 2, None)
        whole, alone = _run(trial, seen)[half], _run(trial, seen, half)
        differ = int((whole != alone).flatten(1).any(1).sum())
        text = f"{differ} of {len(whole)} images differ in another batch"
        foreign = seen.draws.random and isinstance(seen.deployed.networks.classifier, Seeded)
        if differ and foreign:  # its rows share a generator: nobody can do better
            return Measured(Grade.INFO, f"{text}; the classifier draws by itself, per call")
        return graded(differ > 0, text)


class GradientTruth(Probe):
    """Directional derivative against central difference, noise and t(x) replayed.

    Taken of the deployed defence, along the attacker's gradient and along three vectors of random
    signs, which see a missing part too, slightly inside the range, where a clamp has no corner.
    t(x) is replayed: its own gradient (`LevelGradient`) is not looked at. A view that means to be
    something else (BPDA, a surrogate) is told its cosine to the exact gradient instead.
    """

    check = "T9"
    title = "gradient truth"
    means = (
        "the attacker's gradient is not the defence's, or the loss too rough for fp32 to show it"
    )
    advice = "use gradient: adpur.Exact, or find where autograd is cut or rounded away"

    def probe(self, seen: Evidence) -> Measured:
        """Relative error over the images, at the first length that agrees."""
        oracle = seen.trial.oracle(seen.images.y, seen.images.noise)
        if blind := lost(oracle.defense.networks, seen.images.x, oracle.defense.rows):
            return Measured(Grade.INFO, f"no gradient reaches the images: {blind}")
        if not seen.trial.gradient.exact:
            cosine = gradient_cosine(oracle, seen.images.x, 4).nanmean()
            return Measured(Grade.INFO, f"not the exact gradient; cosine to it {cosine:.2f}")
        defense, keys, y = oracle.defense, oracle.noise, seen.images.y
        x = 0.9 * seen.images.x + 0.05
        levels = defense.levels(x, keys)

        def loss(logits: Tensor, rows: Tensor) -> Tensor:
            return Margin().loss(logits, y[rows.to(y.device)])

        grad = defense.loss_and_grad(x, keys, levels, loss, oracle.view).grad

        def error(along: Tensor) -> float:
            slope = (grad * along).flatten(1).double().sum(1)
            found = float("inf")
            for h in LENGTHS:
                found = min(found, _relative(slope, difference(along, h)))
                if found <= ALLOWED:
                    break
            return found

        def difference(along: Tensor, h: float) -> Tensor:
            up, down = (
                defense.loss_and_grad(x + s * h * along, keys, levels, loss).value.double()
                for s in (1, -1)
            )
            return (up - down) / (2 * h)

        own = error(_unit(grad))
        signs = [(keys.fold(step=k).uniform(x, Stream.ATTACK) - 0.5).sign() for k in range(3)]
        across = float(np.median([error(_unit(sign)) for sign in signs]))
        text = f"relative error {own:.1%} along the gradient, {across:.1%} along random signs"
        return graded(max(own, across) > ALLOWED, text)


class Logits(Probe):
    """What the classifier returns are logits, not a distribution."""

    check = "T17"
    title = "logits, not probabilities"
    means = "softmax of a softmax: the gradient of a confident image vanishes"
    advice = "return logits; adpur's losses apply the softmax"

    def probe(self, seen: Evidence) -> Measured:
        """Look for rows that are non-negative and sum to one."""
        defense = seen.trial.defense
        logits = logits_in_calls(defense.networks, seen.images.x, seen.images.noise, defense.rows)
        shares = (logits >= 0).all(1) & ((logits.sum(1) - 1).abs() < 1e-4)
        text = f"{int(shares.sum())} of {len(logits)} rows are distributions"
        return graded(bool(shares.all()), f"{text}; {logits.shape[1]} classes")


PROBES = (NullAttack(), Isolation(), Determinism(), GradientTruth(), Logits())


def _brief(trial: Trial, **rules: object) -> Trial:
    """The trial with a budget that shows its mechanics, not its strength."""
    few = {"steps": lambda n: min(n, 2), "eot": lambda n: min(n, 2), "draws": lambda n: min(n, 2)}
    attack: Attack = changed(trial.attack, **few | rules)  # type: ignore[arg-type]
    return replace(trial, attack=attack, cosine=0)


def _run(trial: Trial, seen: Evidence, rows: slice = slice(None)) -> Tensor:
    x, y, noise = seen.images.rows(rows)
    return trial.attack.run(trial.oracle(y, noise, trial.knowledge.each()[0]), x)


def _unit(v: Tensor) -> Tensor:
    return v / expand(v.flatten(1).norm(dim=1).clamp_min(1e-30), v)


def _relative(slope: Tensor, difference: Tensor) -> float:
    """Sum of errors over the sum of the larger of both; 0 where both vanish."""
    scale = torch.maximum(slope.abs(), difference.abs()).sum()
    return float((slope - difference).abs().sum() / scale) if scale else 0.0


def _generators() -> dict[str, object]:
    numpy: Any = np.random.get_state()
    return {
        "torch": torch.random.get_rng_state().numpy().tobytes(),
        "numpy": (numpy[1].tobytes(), numpy[2]),
        "Python": random.getstate(),
    }
