"""Checks that attack a few images again: weaker, harder, elsewhere."""

from dataclasses import replace

from adpur.attacks.attack import Attack, changed
from adpur.attacks.onestep import OneStep
from adpur.defense.defense import Defense
from adpur.judging.judge import Draws, judge
from adpur.judging.scoreboard import Outcome
from adpur.judging.statistics import Estimate, mean_accuracy
from adpur.judging.trial import Trial
from adpur.models.gate import logits_in_calls
from adpur.models.keyed import Seeded
from adpur.purify.base import Identity
from adpur.purify.still import Still
from adpur.threat.knowledge import Knowledge
from adpur.trust.finding import Evidence, Grade, Level, Measured, Recorded, Review, climbs, graded
from adpur.trust.recorded import BLIND, TOLERANCE, gap


class FirstStep(Review):
    """The attack is at least as strong as its single step (FGSM) on the same images."""

    check = "T12b"
    title = "stronger than FGSM"
    means = "iterating makes it weaker: the loss surface is rough or the steps overshoot"
    advice = "lower step_size or raise eot; a masked gradient looks like this too"

    def review(self, seen: Evidence, recorded: Recorded) -> Measured:
        """Paired difference to FGSM with 10 copies."""
        if not climbs(seen, recorded):
            return Measured(Grade.INFO, BLIND)
        attack = seen.trial.attack
        weak = _again(seen, replace(seen.trial, attack=OneStep(attack.eps, attack.norm)))
        low = gap(recorded.largest, weak).low
        shares = [o.correct.mean() for o in (_same(recorded.largest, weak), weak)]
        return graded(low > TOLERANCE, f"{shares[0]:.1%} against FGSM's {shares[1]:.1%}")


class Undefended(Review):
    """The same attack breaks the bare classifier, or has converged on it."""

    check = "T14"
    title = "bare classifier broken"
    means = "the attack does not even break the classifier alone"
    advice = "mend the attack (steps, step_size) before believing the defence"

    def review(self, seen: Evidence, recorded: Recorded) -> Measured:
        """Accuracy of the bare classifier; twice the steps if it is above chance."""
        if isinstance(seen.deployed.purifier, Identity):
            return Measured(Grade.INFO, "this is the bare classifier")
        nets = seen.deployed.networks
        bare = Defense(Still(), nets, seen.deployed.rows, seen.deployed.workers)
        trial = Trial(bare, seen.trial.attack, random=bare.random(seen.images.x))
        found = _again(seen, trial, bare)
        share = mean_accuracy(found.correct)
        text = f"{share.value:.1%} of {len(found.images)} images hold without purification"
        if not _above_chance(share, _classes(seen)):
            return Measured(Grade.PASS, text)
        longer = _again(seen, replace(trial, attack=_harder(trial.attack, 2)), bare)
        moved = gap(found, longer).low > TOLERANCE
        return (
            Measured(Grade.WARN, text)
            if moved
            else Measured(Grade.INFO, f"{text}; twice the steps change nothing")
        )


class LargeEps(Review):
    """At eps 0.5 and 1 (Linf, or the L2 balls of equal diameter) nothing is left above chance."""

    check = "T10b"
    title = "large eps reaches chance"
    level = Level.FULL
    means = "a ball that holds every image does not break it: gradients are masked"
    advice = "look at T8 and T9; try a query attack"

    def review(self, seen: Evidence, recorded: Recorded) -> Measured:
        """Attack at both radii, steps in proportion."""
        if not climbs(seen, recorded):
            return Measured(Grade.INFO, BLIND)
        norm, pixels = seen.trial.attack.norm, seen.images.x[0].numel()
        radii = {r: eps for r in (0.5, 1.0) if (eps := norm.reach(r, pixels)) is not None}
        if not radii:
            return Measured(Grade.INFO, f"no eps of {type(norm).__name__} reaches every image")
        found = {r: mean_accuracy(_again(seen, _at(seen, e)).correct) for r, e in radii.items()}
        left = [r for r, share in found.items() if _above_chance(share, _classes(seen))]
        return graded(bool(left), ", ".join(f"{r}: {s.value:.1%}" for r, s in found.items()))


class Convergence(Review):
    """Twice the steps, and twice the EOT copies, lower the accuracy by less than chance allows."""

    check = "T11"
    title = "converged"
    level = Level.FULL
    means = "a longer search is stronger: the number is too high"
    advice = "raise what is named, until this check passes"

    def review(self, seen: Evidence, recorded: Recorded) -> Measured:
        """Paired differences to both."""
        attack = seen.trial.attack
        harder = {"steps": _harder(attack, 2), "eot": changed(attack, eot=lambda n: 2 * n)}
        gains = {
            name: gap(recorded.largest, _again(seen, replace(seen.trial, attack=more)))
            for name, more in harder.items()
            if more != attack
        }
        bad = [name for name, gain in gains.items() if gain.low > TOLERANCE]
        told = ", ".join(f"twice the {n}: {g.value:.1%} lower" for n, g in gains.items())
        return graded(bool(bad), told or "the attack has neither steps nor eot")


class FixedNoise(Review):
    """With the purifier's noise frozen and known, the attack is at least as strong."""

    check = "T13"
    title = "fixed noise is easier"
    level = Level.FULL
    means = "an attack that fails on one known function is broken (Carlini et al. 2019)"
    advice = "mend the gradient (T9); randomness is not what stops this attack"

    def review(self, seen: Evidence, recorded: Recorded) -> Measured:
        """Accuracy under replay against the block's."""
        foreign = isinstance(seen.deployed.networks.classifier, Seeded)
        if not climbs(seen, recorded) or not seen.draws.random or foreign:
            return Measured(Grade.INFO, f"deterministic, {BLIND}, or noise that nobody can know")
        replay = replace(seen.trial, knowledge=Knowledge(pool=1))
        fixed = _again(seen, replay)
        low = gap(fixed, recorded.largest).low
        shares = fixed.correct.mean(), _same(recorded.largest, fixed).correct.mean()
        return graded(low > TOLERANCE, f"{shares[0]:.1%} fixed, {shares[1]:.1%} fresh")


RETRIED = (FirstStep(), Undefended(), LargeEps(), Convergence(), FixedNoise())


def _again(seen: Evidence, trial: Trial, deployed: Defense | None = None) -> Outcome:
    """The outcome of another trial on the images at hand."""
    target = deployed if deployed is not None else seen.deployed
    draws = min(seen.draws.evaluate, 5)  # images count here, not draws
    few = Draws(draws, 1, trial.random if deployed is not None else seen.draws.random)
    return Outcome.of(judge(target, seen.images, few, replace(trial, cosine=0)).scores)


def _harder(attack: Attack, factor: int) -> Attack:
    return changed(attack, steps=lambda n: factor * n)


def _at(seen: Evidence, eps: float) -> Trial:
    """The trial at another radius."""
    attack = seen.trial.attack
    scale = eps / attack.eps if attack.eps else 1.0
    wider = changed(attack, eps=lambda e: eps, step_size=lambda s: s * scale)
    return replace(seen.trial, attack=wider)


def _classes(seen: Evidence) -> int:
    nets, rows, one = seen.deployed.networks, seen.deployed.rows, seen.images.first(1)
    return logits_in_calls(nets, one.x, one.noise, rows).shape[1]


def _above_chance(share: Estimate, classes: int) -> bool:
    return share.low > 1 / classes


def _same(outcome: Outcome, like: Outcome) -> Outcome:
    wanted = set(like.images.tolist())
    return Outcome.of(s for s in outcome.scores if s.index in wanted)
