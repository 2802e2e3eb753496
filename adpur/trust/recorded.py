"""Checks that read the records alone: they cost nothing."""

from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from adpur.judging.arithmetic import UNKNOWN
from adpur.judging.records import digest
from adpur.judging.scoreboard import Outcome, Score
from adpur.judging.statistics import Estimate, mean_accuracy, paired_difference
from adpur.trust.finding import Evidence, Grade, Measured, Recorded, Review, climbs, graded

TOLERANCE = 0.002
"""By how much a weaker attack may be better by rounding: AutoAttack's 0.2 points."""

BLIND = "not an attack by the exact gradient"
"""Why a check has nothing to say."""


class Ball(Review):
    """What the attack returned lay in the ball and in [0, 1]; what was judged always does."""

    check = "T1"
    title = "ball and range"
    means = "the attack searched outside the threat model; its projected images are weaker"
    advice = "project inside the attack: norm.project(found, x, eps)"

    def review(self, seen: Evidence, recorded: Recorded) -> Measured:
        """The largest excess before projection."""
        beyond = max(s.outside for o in recorded.attacked.values() for s in o.scores)
        return graded(beyond > 1e-6, f"at most {beyond:.1g} outside before projection")


class FreshNoise(Review):
    """Searching, choosing and scoring draw under keys of their own role."""

    check = "T3"
    title = "fresh evaluation noise"

    def review(self, seen: Evidence, recorded: Recorded) -> Measured:
        """By construction; a label where the attacker is given the evaluation's noise."""
        knowledge = seen.trial.knowledge
        if knowledge.pool is None:
            return Measured(Grade.PASS, "attack, selection and evaluation keys are disjoint")
        streams = ", ".join(sorted(s.name.lower() for s in knowledge.streams))
        told = f"{knowledge.seeds} pool(s) of {knowledge.pool} draw(s) known: {streams}"
        return Measured(Grade.INFO, told)


class EveryImage(Review):
    """No image that the defence ever gets right is returned as it was."""

    check = "T6"
    title = "every image attacked"
    means = "images were skipped: they count as robust, or as lost, without an attack"
    advice = "attack every image, and return the point of highest mean loss on failure"

    def review(self, seen: Evidence, recorded: Recorded) -> Measured:
        """Count perturbations of size 0 at the largest radius."""
        if max(recorded.attacked) == 0:
            return Measured(Grade.INFO, "eps is 0")
        right = _ever_right(recorded.clean)
        scores = [s for s in recorded.largest.scores if s.index in right]
        still = sum(s.size == 0 for s in scores)
        return graded(still > 0, f"{still} of {len(scores)} images untouched")


class LossRises(Review):
    """The margin on held-out draws is higher than on the clean image."""

    check = "T7"
    title = "loss rises"
    means = "the attack climbs on its own draws and not on fresh ones, or does not climb"
    advice = "raise eot; look for a gradient that is zero, masked or of another defence"

    def review(self, seen: Evidence, recorded: Recorded) -> Measured:
        """Share of images ever right whose mean margin rises, at the largest radius."""
        if max(recorded.attacked) == 0:
            return Measured(Grade.INFO, "eps is 0")
        before = {s.index: _margin(s) for s in recorded.clean.scores}
        right = _ever_right(recorded.clean)
        scores = [s for s in recorded.largest.scores if s.index in right and s.index in before]
        share = float(np.mean([_margin(s) > before[s.index] for s in scores])) if scores else 1.0
        return graded(share < 0.95, f"{share:.1%} of {len(scores)} images")


class GradientHealth(Review):
    """Gradients are not zero, and halves of the EOT copies agree on a direction."""

    check = "T8"
    title = "gradient health"
    means = "there is little to climb: saturated or masked gradients, or too few EOT copies"
    advice = "raise eot; try loss: adpur.DLR, or a query attack to see what is hidden"

    def review(self, seen: Evidence, recorded: Recorded) -> Measured:
        """Share of zero gradients, and the median cosine between halves."""
        asked = [s for s in recorded.largest.scores if s.zero is not None]
        scores = [s for s in asked if s.label in s.predictions]  # a lost image hides nothing
        if not scores:
            told = "no image is left" if asked else "the attack asks for no gradient"
            return Measured(Grade.PASS if asked else Grade.INFO, told)
        zero = float(np.mean([s.zero or 0.0 for s in scores]))
        cosines = [s.agreement for s in scores if s.agreement is not None]
        agreed = float(np.median(cosines)) if cosines else float("nan")
        halves = f"; halves of the copies at cosine {agreed:.2f}" if cosines else ""
        return graded(zero > 0 or agreed < 0.1, f"{zero:.1%} zero{halves}")


class BudgetCurve(Review):
    """Robust accuracy does not rise with eps, beyond what pairs of images allow."""

    check = "T10a"
    title = "accuracy falls with eps"
    means = "a larger ball holds the smaller one: the attack does not use it"
    advice = "let step_size follow eps (leave it unset), or raise steps"

    def review(self, seen: Evidence, recorded: Recorded) -> Measured:
        """Pairs of neighbouring radii, clean included."""
        curve = [(0.0, recorded.clean), *sorted(recorded.attacked.items())]
        rising = [r for (_, low), (r, high) in pairwise(curve) if gap(high, low).low > TOLERANCE]
        told = ", ".join(f"{r:.3g}: {o.correct.mean():.1%}" for r, o in curve)
        return graded(bool(rising), told)


class Ordering(Review):
    """No other block of the row with the same radius, norm and knowledge is stronger."""

    check = "T12a"
    title = "exact gradient strongest"
    means = "a cheaper or blinder attack is stronger: the exact gradient is masked or starved"
    advice = "quote the union of both; raise steps and eot of the exact block"

    def review(self, seen: Evidence, recorded: Recorded) -> Measured:
        """Paired differences to every other block."""
        if not climbs(seen, recorded):
            return Measured(Grade.INFO, BLIND)
        gaps = {n: gap(recorded.largest, o).low for n, o in recorded.others.items()}
        stronger = [name for name, low in gaps.items() if low > TOLERANCE]
        told = f"{len(gaps)} other block(s)" if not stronger else f"{stronger[0]} is stronger"
        return graded(bool(stronger), told)


class Stochastic(Review):
    """Whether the defence varies, and over how many draws it was seen."""

    check = "T16"
    title = "draws of a random defence"
    means = "one draw an image: nothing is known of how answers vary"
    advice = "raise draws (10 or more), or give the block knowledge: {pool: 1, seeds: 5}"

    def review(self, seen: Evidence, recorded: Recorded) -> Measured:
        """N and the half-width of the interval."""
        found = mean_accuracy(recorded.largest.correct)
        draws = recorded.largest.predictions.shape[1]
        width = 50 * (found.high - found.low)
        kind = "random" if seen.draws.random else "deterministic"
        text = f"{kind}; {draws} draw(s) an image, +-{width:.1f} points"
        return graded(seen.draws.random and draws == 1, text)


class SameDefense(Review):
    """Whether the attacker differentiates what is deployed."""

    check = "T18"
    title = "attack and defence"

    def review(self, seen: Evidence, recorded: Recorded) -> Measured:
        """A label that names the gradient where they differ."""
        mode = seen.trial.gradient
        if seen.trial.defense is not seen.deployed:
            return Measured(Grade.INFO, "transferred from another defence")
        exact = "the deployed purifier" if mode.exact else "a surrogate of the deployed purifier"
        grade = Grade.PASS if mode.exact else Grade.INFO
        return Measured(grade, f"{type(mode).__name__}: {exact}")


class Sample(Review):
    """What was evaluated."""

    check = "T19"
    title = "sample"

    def review(self, seen: Evidence, recorded: Recorded) -> Measured:
        """Images, balance of classes, and a name for exactly these images."""
        outcome = recorded.largest
        counts = np.bincount(outcome.labels)
        name = digest(outcome.images.tolist())[:12]
        balance = f"{counts[counts > 0].min()} to {counts.max()} of a class"
        return Measured(Grade.INFO, f"{len(outcome.images)} images ({balance}), rows {name}")


class OneArithmetic(Review):
    """All was computed by processors, devices and versions that agree to the last bit."""

    check = "T20"
    title = "one arithmetic"
    means = "decisions near a tie depend on which machine computed which image"
    advice = "compute the run on one kind of device with one torch: --fresh, without --mixed"

    def review(self, seen: Evidence, record: Recorded) -> Measured:
        """Images by arithmetic; a warning where more than last bits may differ."""
        computed = record.computed
        if computed.mixed:
            return Measured(Grade.WARN, "; ".join(computed.marks))
        one = not computed.marks and UNKNOWN not in computed.images
        return Measured(Grade.PASS if one else Grade.INFO, str(computed))


RECORDED = (
    Ball(), FreshNoise(), EveryImage(), LossRises(), GradientHealth(), BudgetCurve(), Ordering(),
    Stochastic(), SameDefense(), Sample(), OneArithmetic(),
)  # fmt: skip


def paired(first: Outcome, second: Outcome) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Per-image shares of right draws `(n, 1)` of two columns, on the images both have."""
    one = dict(zip(first.images.tolist(), first.correct.mean(1), strict=True))
    two = dict(zip(second.images.tolist(), second.correct.mean(1), strict=True))
    both = sorted(one.keys() & two.keys())
    return np.array([[one[i]] for i in both]), np.array([[two[i]] for i in both])


def gap(first: Outcome, second: Outcome) -> Estimate:
    """How much more often `first` is right, in pairs of images."""
    return paired_difference(*paired(first, second))


def _margin(score: Score) -> float:
    return sum(score.margin) / len(score.margin)


def _ever_right(clean: Outcome) -> set[int]:
    return {s.index for s in clean.scores if s.label in s.predictions}
