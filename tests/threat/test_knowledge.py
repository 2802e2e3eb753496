"""Which draws attack, selection and evaluation share, for every state of knowledge and stream."""

from dataclasses import dataclass, replace

import pytest
import torch
from problems import LinearClassifier, WavyDenoiser, images
from torch import Tensor
from toy import REFERENCE

import adpur
from adpur import (
    L2,
    PGD,
    Constant,
    Defense,
    Diffusion,
    Ensemble,
    Knowledge,
    Linf,
    Majority,
    MeanLogits,
    Networks,
    Noise,
    Norm,
    Oracle,
    Purified,
    Purifier,
    Reweighted,
    ScoreNorm,
    Sigmoid,
    Single,
    Source,
    Stream,
    Strided,
    gdmp,
)
from adpur.diffusion.step import Ancestral
from adpur.keyed.noise import ALL
from adpur.purify.base import Around, Context, Levels, Shape

NOISE = Noise(torch.arange(3), seed=1)
IMAGES, RESTARTS, ITERATIONS, DRAWS = 3, 2, 3, 5
STATES = {
    "white-box": (adpur.white_box(), frozenset[Stream]()),
    "DW-forward": (adpur.dw_forward(), frozenset({Stream.FORWARD})),
    "DW-both": (adpur.dw_both(), ALL),
    "DW-semi-4": (adpur.dw_semi(4), ALL),
    "pool of 2: forward, level": (
        Knowledge(2, frozenset({Stream.FORWARD, Stream.LEVEL})),
        frozenset({Stream.FORWARD, Stream.LEVEL}),
    ),
}
SSNI = Diffusion(
    # steep, around the norms of `images`: another draw of the norm is another level
    Reweighted(60, Sigmoid(0.5), replace(REFERENCE, mean=8.8), ScoreNorm(20, 5)),
    Strided(5),
)
REVPURE = replace(SSNI, inject=False, step=Ancestral(eta=0))  # its level is all that is random
Draws = set[tuple[float, ...]]
every_state = pytest.mark.parametrize("state", STATES)
every_ensemble = pytest.mark.parametrize(
    "ensemble", [Single(), MeanLogits(2), Majority(3)], ids=["single", "mean-2", "majority-3"]
)


def drawn(keys: Noise, *streams: Stream) -> Draws:
    like = torch.zeros(len(keys.index), 1, 2, 2)
    draws = torch.cat([keys.normal(like, stream).flatten(1) for stream in streams], 1)
    return set(map(tuple, draws.tolist()))


def attacked(known: Knowledge, copies: int, votes: int, *streams: Stream) -> Draws:
    """All an attack with restarts sees."""
    found: Draws = set()
    for restart in range(RESTARTS):
        for iteration in range(ITERATIONS):
            keys = known.attack(NOISE.fold(restart=restart), iteration, copies, votes)
            found |= drawn(keys, *streams)
    return found


def evaluated(known: Knowledge, votes: int, *streams: Stream) -> Draws:
    return drawn(known.evaluate(NOISE, DRAWS).tiled("vote", votes), *streams)


def selected(known: Knowledge, votes: int, *streams: Stream) -> Draws:
    return drawn(known.select(NOISE, DRAWS, 7).tiled("vote", votes), *streams)


@every_state
@every_ensemble
@pytest.mark.parametrize("copies", [1, 3])
def test_each_stream_is_shared_wholly_or_not_at_all(
    state: str, ensemble: Ensemble, copies: int
) -> None:
    (known, shared), votes = STATES[state], ensemble.votes
    queries, seen = RESTARTS * ITERATIONS, votes if known.pool is not None else 1
    for stream in ALL:
        attack, evaluation = (
            attacked(known, copies, votes, stream),
            evaluated(known, votes, stream),
        )
        if stream in shared:
            assert attack <= evaluation
            assert len(evaluation) == IMAGES * known.pool * votes  # type: ignore[operator]
            reached = min(known.pool, ITERATIONS * copies)  # type: ignore[type-var]
            assert len(attack) == IMAGES * reached * votes  # a restart has the same pool
        else:
            assert not attack & evaluation
            least = min(copies, known.pool or copies) if shared >= ALL else copies
            assert len(attack) == IMAGES * queries * least * seen
            draws = known.draws(DRAWS)
            assert len(evaluation) == IMAGES * draws * votes


@every_state
@every_ensemble
def test_selection_sees_an_evaluation_draw_only_where_all_noise_is_known(
    state: str, ensemble: Ensemble
) -> None:
    (known, shared), votes = STATES[state], ensemble.votes
    whole = selected(known, votes, *sorted(ALL)), evaluated(known, votes, *sorted(ALL))
    assert (whole[0] <= whole[1]) == (shared >= ALL)
    assert bool(whole[0] & whole[1]) == (shared >= ALL)
    for stream in ALL - shared:
        mine = selected(known, votes, stream)
        others = evaluated(known, votes, stream) | attacked(known, 3, votes, stream)
        assert not mine & others


@pytest.mark.parametrize("known", [adpur.dw_both(2), adpur.dw_semi(3, 2)], ids=["1", "3"])
def test_pools_of_other_seeds_are_other_noise(known: Knowledge) -> None:
    one, other = known.each()
    for stream in ALL:
        assert not evaluated(one, 1, stream) & evaluated(other, 1, stream)
        assert attacked(other, 3, 1, stream) == evaluated(other, 1, stream)
        run = drawn(other.evaluate(NOISE.fold(seed=2), DRAWS), stream)
        assert not run & evaluated(other, 1, stream)


def test_names_are_the_fields() -> None:
    assert {name: known.name for name, (known, _) in STATES.items()} == {n: n for n in STATES}
    assert adpur.replay() == adpur.dw_both() != adpur.dw_semi() == Knowledge(128)
    assert adpur.dw_both(4).name == "DW-both" and adpur.dw_semi().name == "DW-semi-128"
    assert Knowledge(None, frozenset({Stream.FORWARD})).name == "white-box"


def defended(purifier: Purifier) -> Defense:
    return Defense(purifier, Networks(LinearClassifier(), WavyDenoiser()), rows=4)


def at_evaluation(oracle: Oracle, x: Tensor) -> Tensor:
    """The loss of the deployed defence on its first evaluation draw."""
    logits = oracle.defense(x, oracle.knowledge.evaluate(oracle.noise, 1)[: len(x)]).logits
    return oracle.loss.loss(logits, oracle.y)


@pytest.mark.parametrize(
    ("purifier", "known", "same"),
    [
        (SSNI, adpur.dw_both(), True),
        (SSNI, adpur.white_box(), False),
        (SSNI, Knowledge(1, frozenset({Stream.LEVEL})), False),
        (REVPURE, adpur.white_box(), False),
        (
            REVPURE,
            Knowledge(1, frozenset({Stream.LEVEL})),
            True,
        ),
        (REVPURE, adpur.dw_forward(), False),
    ],
    ids=["both", "white-box", "level", "revpure-white", "revpure-level", "revpure-forward"],
)
def test_a_known_level_stream_is_the_evaluations_level(
    purifier: Purifier, known: Knowledge, same: bool
) -> None:
    """SSNI's own draws decide t(x): the loss the attack sees is the evaluation's, or is not."""
    x, y = images(3), torch.zeros(3, dtype=torch.int64)
    oracle = Oracle(defended(purifier), purifier, y, NOISE, known)
    with torch.no_grad():
        expected = at_evaluation(oracle, x)
    for iteration in range(2):
        assert torch.equal(oracle.per_draw(x, iteration, 1).loss[0], expected) == same


@dataclass(frozen=True)
class Frozen(Around):
    """A deterministic defence: whoever asks, the noise of member 0, its key spelled out."""

    inner: Purifier

    def check(self, nets: Networks, shape: Shape) -> None:
        """The inner purifier's."""
        self.inner.check(nets, shape)

    def seen(self, x: Tensor) -> Tensor:
        """The inner purifier's."""
        return self.inner.seen(x)

    def purify(self, x: Tensor, noise: Noise, levels: Levels, context: Context) -> Purified:
        """Under `Source.POOL` and zeros."""
        fixed = Noise(noise.index, noise.seed, Source.POOL)
        return self.inner.purify(x, fixed, levels, context)


@pytest.mark.parametrize("norm", [Linf(), L2()], ids=repr)
@pytest.mark.parametrize(
    "purifier", [Diffusion(Constant(60), Strided(20)), gdmp(40, 2, 20)], ids=["ddpm", "gdmp"]
)
def test_full_knowledge_of_one_draw_is_a_deterministic_defence(
    purifier: Purifier, norm: Norm
) -> None:
    x, y = images(3), torch.zeros(3, dtype=torch.int64)
    attack = PGD(0.2, steps=3, norm=norm, eot=4, restarts=2, select=2)
    known = Oracle(defended(purifier), purifier, y, NOISE, adpur.replay())
    frozen = Oracle(defended(Frozen(purifier)), Frozen(purifier), y, NOISE)
    one, other = attack.run(known, x), replace(attack, eot=1).run(frozen, x)
    assert torch.equal(one, other) and not torch.equal(one, x)
    with torch.no_grad():
        replayed = known.defense(one, adpur.replay().evaluate(NOISE, DRAWS)).logits
        keys = adpur.white_box().evaluate(NOISE, 2)
        always = frozen.defense(other.repeat(2, 1, 1, 1), keys).logits
    assert torch.equal(always, replayed.repeat(2, 1))


def test_a_mistaken_attack_is_judged_by_the_blocks_knowledge() -> None:
    """`Assuming` attacks as replay does, to the bit, whatever the oracle knows."""
    purifier, x = Diffusion(Constant(60), Strided(20)), images(3)
    fresh = Oracle(defended(purifier), purifier, torch.zeros(3, dtype=torch.int64), NOISE)
    attack = PGD(0.9, steps=2, eot=1)
    assuming = adpur.Assuming(attack, adpur.replay(), eps=0.2, norm=L2())
    own = replace(attack, eps=0.2, norm=L2())
    want = own.run(replace(fresh, knowledge=adpur.replay()), x)
    assert torch.equal(assuming.run(fresh, x), want)
    assert not torch.equal(own.run(fresh, x), want)
