"""The one way a number is made: search, project, predict again under keys nobody searched with."""

import math
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from adpur.attacks.attack import Attack
from adpur.defense.defense import Defense, Prediction
from adpur.errors import AttackError, ConfigError
from adpur.judging.scoreboard import Score
from adpur.judging.trial import Examples, Trial
from adpur.keyed.noise import Noise
from adpur.models.gate import refuse_batch_mates
from adpur.models.logits import refuse_non_finite
from adpur.threat.compare import gradient_cosine
from adpur.threat.knowledge import Knowledge
from adpur.threat.losses import Margin
from adpur.threat.oracle import fooled
from adpur.threat.trace import Trace

LAST = 2**20 - 1
"""The iteration of the selection keys that choose between attacks: no attack's own gets here."""

CHECKED = 3
"""Draws of what is not random: they must agree."""


class Verdict(NamedTuple):
    """Scores of B images, and the images `(B, C, H, W)` of the first draw."""

    scores: list[Score]
    adversarial: Tensor
    purified: Tensor

    @property
    def correct(self) -> Tensor:
        """Which draws of each image are right, bool `(B, N)`, in the images' own order."""
        return torch.tensor([score.correct for score in self.scores])


class Draws(NamedTuple):
    """How many draws images are judged by.

    Args:
        evaluate: N, evaluation draws an image.
        select: selection draws that choose between attacks in a union.
        random: whether draws can differ; if not, a few are made, compared, and stand for all.
    """

    evaluate: int
    select: int
    random: bool = True


@torch.no_grad()
def judge(
    defense: Defense, images: Examples, draws: Draws, trial: Trial | None = None,
    trace: Trace | None = None,
) -> Verdict:  # fmt: skip
    """Score images under a trial; clean, and under fresh noise, without one.

    What the trial's threat admits of an attacked image at its eps is predicted again by `defense`
    under N evaluation keys: an attack's own claim of success counts for nothing. At eps 0 the
    scores are those of the clean images, exactly. Each of `knowledge.seeds` pools is attacked and
    judged on its own.
    """
    x, y, noise = images
    trial = trial if trial is not None else Trial(defense)
    trace = trace if trace is not None else Trace(len(x))
    outs, chosen, sizes, cosines, admitted = [], [], [], [], []
    for known in trial.knowledge.each():
        oracle = trial.oracle(y, noise, known)
        with torch.enable_grad():
            cosine = gradient_cosine(oracle, x, trial.cosine) if trial.cosine else None
            x_adv = trial.attack.run(replace(oracle, trace=trace), x)
        image, size = _admitted(x_adv.detach(), x, trial.attack, trace)
        outs.append(_evaluated(defense, image, noise, known, draws))
        chosen.append(_selected(defense, image, noise, known, draws))
        sizes.append(size)
        cosines.append(cosine if cosine is not None else torch.full_like(size, torch.nan))
        admitted.append(image)
    out = Prediction(*(torch.cat(parts) for parts in zip(*outs, strict=True)))
    size, cosine = torch.stack(sizes).amax(0), torch.stack(cosines).mean(0)
    scores = _scores(out, torch.cat(chosen), noise.index, y, size, cosine, trace)
    return Verdict(scores, admitted[0], out.image[: len(x)])


def _admitted(image: Tensor, x: Tensor, attack: Attack, trace: Trace) -> tuple[Tensor, Tensor]:
    """What an attack returned, brought into its set, and sizes; nothing else is mended."""
    if image.shape != x.shape or image.dtype != x.dtype or not torch.isfinite(image).all():
        raise AttackError(
            f"the attack returned {tuple(image.shape)} {image.dtype} images"
            f"{'' if torch.isfinite(image).all() else ' that are not all finite'}; "
            f"expected finite {tuple(x.shape)} {x.dtype}"
        )
    found = attack.norm.admitted(image, x, attack.eps)
    beyond = zip(trace.outside, found.excess.tolist(), strict=True)
    trace.outside = [max(a, b) for a, b in beyond]
    return found.image, found.size


def _evaluated(
    defense: Defense, x: Tensor, noise: Noise, knowledge: Knowledge, asked: Draws
) -> Prediction:
    """Predictions of all evaluation draws, draw-major."""
    wanted = knowledge.draws(asked.evaluate)
    keys = knowledge.evaluate(noise, wanted if asked.random else min(CHECKED, wanted))
    draws = len(keys.index) // len(x)
    out = defense(x.repeat(draws, 1, 1, 1), keys)
    refuse_non_finite(out.logits, noise.index)
    if asked.random:
        return out
    logits = out.logits.view(draws, len(x), -1)
    if not (logits == logits[0]).all():
        refuse_batch_mates(defense.networks, x, defense.rows)
        raise ConfigError(
            "this row looked deterministic on grey and on noise, but draws of an image differ: "
            "give the row `random: true`"
        )
    return Prediction(*(v[: len(x)].repeat(wanted, *[1] * (v.dim() - 1)) for v in out))


def _selected(
    defense: Defense, x: Tensor, noise: Noise, knowledge: Knowledge, asked: Draws
) -> Tensor:
    """Logits `(M, B, classes)` on the draws that choose between attacks."""
    keys = knowledge.select(noise, asked.select if asked.random else 1, LAST)
    draws = len(keys.index) // len(x)
    logits = defense(x.repeat(draws, 1, 1, 1), keys).logits
    refuse_non_finite(logits, noise.index)
    return logits.unflatten(0, (draws, len(x)))


def _scores(
    out: Prediction, chosen: Tensor, index: Tensor, y: Tensor, size: Tensor, cosine: Tensor,
    trace: Trace,
) -> list[Score]:  # fmt: skip
    draws = len(out.logits) // len(y)
    margin = Margin().loss(out.logits, y.repeat(draws))
    running = out.logits.double().view(draws, len(y), -1).cumsum(0).argmax(2).T.tolist()

    def per_image(v: Tensor) -> list[Any]:
        listed: list[Any] = v.view(draws, len(y), *v.shape[1:]).transpose(0, 1).tolist()
        return listed

    predictions, margins, t, snapped, norms, nfe = (
        per_image(v)
        for v in (out.logits.argmax(1), margin, out.levels, out.snapped, out.score_norm, out.nfe)
    )
    strength = fooled(chosen, y).tolist()
    return [
        Score(
            index=int(index[i]),
            label=int(y[i]),
            predictions=predictions[i],
            mean_logits=running[i],
            margin=margins[i],
            t=t[i],
            snapped=snapped[i],
            score_norm=[_number(n) for n in norms[i]],
            nfe=sum(nfe[i]) / draws,
            size=float(size[i]),
            cosine=_number(float(cosine[i])),
            strength=strength[i],
            loss=trace.loss[i],
            gradients=trace.gradients[i],
            queries=trace.values[i],
            zero=trace.zero_share(i),
            agreement=trace.agreed(i),
            claimed=trace.claimed[i],
            outside=trace.outside[i],
        )
        for i in range(len(y))
    ]


def _number(value: float) -> float | None:
    return None if math.isnan(value) else value
