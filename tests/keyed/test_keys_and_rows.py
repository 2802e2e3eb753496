"""Keys, shapes, R and snapping: what every other file stands on."""

import pytest
import torch
from problems import SHAPE, GaussianDenoiser, images, networks

from adpur import (
    ConfigError,
    Constant,
    Defense,
    Diffusion,
    Identity,
    Noise,
    Source,
    Stream,
    Strided,
)
from adpur.keyed.noise import philox
from adpur.keyed.rows import chunks, groups, in_calls, lanes, mapped

LIKE = torch.zeros(5, 3, 4, 4)


def draw(noise: Noise, stream: Stream = Stream.REVERSE) -> torch.Tensor:
    return noise.normal(LIKE[: len(noise.index)], stream)


@pytest.mark.parametrize(
    ("counter", "key", "words"),
    [  # the known answers of Random123
        ([0] * 4, [0] * 2, "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
        ([0xFFFFFFFF] * 4, [0xFFFFFFFF] * 2, "408f276d 41c83b0e a20bc7c6 6d5451fd"),
        (
            [0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344],
            [0xA4093822, 0x299F31D0],
            "d16cfe09 94fdcceb 5001e420 24126ea1",
        ),
    ],
)
def test_philox_known_answers(counter: list[int], key: list[int], words: str) -> None:
    out = philox([torch.tensor([c]) for c in counter], [torch.tensor([k]) for k in key])
    assert " ".join(f"{int(w):08x}" for w in out[:, 0]) == words


KEYS = [
    {"seed": 2**32 - 1},
    {"source": Source.ATTACK},
    {"restart": 2**12 - 1},
    {"iteration": 2**20 - 1},
    {"draw": 2**32 - 1},
    {"vote": 2**12 - 1},
    {"stage": 2**12 - 1},
    {"step": 2**12 - 1},
    {"index": torch.arange(5) + 2**31},
]


def test_every_part_of_the_key_matters_and_none_reaches_into_another() -> None:
    base = Noise(torch.arange(5))
    draws = [draw(base), *(draw(base.fold(**key)) for key in KEYS)]
    draws += [draw(base, stream) for stream in Stream if stream != Stream.REVERSE]
    firsts = torch.stack(draws).flatten(2)[:, 0]
    assert len({tuple(f.tolist()) for f in firsts}) == len(draws)


def test_a_part_beyond_its_bits_is_refused() -> None:
    with pytest.raises(ConfigError, match="iteration=1048576 does not fit in 20 bits"):
        Noise(torch.arange(2), iteration=2**20)


def test_rows_do_not_see_each_other() -> None:
    noise = Noise(torch.tensor([7, 3, 9, 3, 1]), seed=4, draw=torch.tensor([0, 1, 2, 3, 4]))
    order = torch.tensor([4, 0, 2])
    assert torch.equal(draw(noise)[order], draw(noise[order]))
    one_by_one = [draw(Noise(torch.tensor([i]), 4, draw=k)) for k, i in enumerate([7, 3, 9, 3, 1])]
    assert torch.equal(draw(noise), torch.cat(one_by_one))


def test_votes_and_steps_may_differ_per_row() -> None:
    votes, steps = torch.tensor([0, 3, 1, 0, 2]), torch.tensor([4, 0, 0, 1, 2])
    together = draw(Noise(torch.arange(5), vote=votes, step=steps))
    alone = [Noise(torch.tensor([i]), vote=int(votes[i]), step=int(steps[i])) for i in range(5)]
    assert torch.equal(together, torch.cat([draw(noise) for noise in alone]))


def test_repeat_is_copy_major() -> None:
    noise = Noise(torch.tensor([7, 3]))
    repeated = draw(noise.repeat(2))
    assert torch.equal(repeated[:2], draw(noise))
    assert torch.equal(repeated[2:], draw(noise.fold(draw=1)))


def test_noise_drawn_ahead_is_the_same_noise() -> None:
    noise = Noise(torch.tensor([7, 3]), draw=torch.tensor([1, 2]), seed=4)
    row, step = torch.tensor([[0, 1], [1, 1], [1, 0]]), torch.tensor([[3, 5], [4, 6], [2, 3]])
    for k, early in enumerate(noise.ahead(LIKE[:2], Stream.REVERSE, row, step)):
        keyed = noise[row[k]].fold(step=step[k])
        assert torch.equal(draw(keyed), draw(early))
        assert torch.equal(draw(keyed, Stream.FORWARD), draw(early, Stream.FORWARD))
        assert torch.equal(draw(keyed.fold(step=9)), draw(early.fold(step=9)))


def test_the_same_noise_in_every_dtype() -> None:
    noise = Noise(torch.arange(5))
    wide = noise.normal(LIKE.double(), Stream.FORWARD)
    assert torch.equal(wide.float(), noise.normal(LIKE, Stream.FORWARD))


def test_noise_is_standard_gaussian_and_uniform() -> None:
    from scipy import stats

    like = torch.zeros(400, 1, 16, 16, dtype=torch.float64)
    noise = Noise(torch.arange(400))
    z, u = noise.normal(like, Stream.FORWARD), noise.uniform(like, Stream.FORWARD)
    assert stats.kstest(z.flatten().numpy(), "norm").pvalue > 1e-3
    assert stats.kstest(u.flatten().numpy(), "uniform").pvalue > 1e-3
    neighbours = torch.corrcoef(torch.stack([z[:-1].flatten(), z[1:].flatten()]))[0, 1]
    assert abs(neighbours) < 4 / z.numel() ** 0.5


def test_pooled_streams_forget_who_draws() -> None:
    noise = Noise(torch.arange(5), pooled=frozenset({Stream.FORWARD}), member=2)
    other = noise.fold(source=Source.ATTACK, iteration=5, restart=1, draw=9)
    assert torch.equal(draw(noise, Stream.FORWARD), draw(other, Stream.FORWARD))
    assert not torch.equal(draw(noise, Stream.REVERSE), draw(other, Stream.REVERSE))
    assert not torch.equal(draw(noise, Stream.FORWARD), draw(noise.fold(member=1), Stream.FORWARD))


def test_the_global_generator_is_untouched() -> None:
    before = torch.random.get_rng_state()
    Defense(Diffusion(Constant(40), Strided(20)), networks(), rows=4)(images(6))
    assert torch.equal(before, torch.random.get_rng_state())


@pytest.mark.parametrize("count", [1, 3, 4, 5, 8, 9])
def test_chunks_have_exactly_r_rows_and_lose_nothing(count: int) -> None:
    real = [chunk[:n] for chunk, n in chunks(count, 4) if len(chunk) == 4]
    assert torch.cat(real).tolist() == list(range(count))
    (back,) = in_calls(lambda chunk: [chunk * 10], count, 4)
    assert back.tolist() == [10 * i for i in range(count)]


@pytest.mark.parametrize("parts", [1, 2, 3])
@pytest.mark.parametrize("count", [1, 5, 40])
def test_groups_share_the_work_and_come_back_in_order(count: int, parts: int) -> None:
    cost = torch.randint(0, 6, (count,), generator=torch.Generator().manual_seed(count))
    cut = groups(cost, 4, parts)
    (back,) = mapped(lambda part: [part * 10], cut, workers=2)
    assert back.tolist() == [10 * i for i in range(count)]
    loads = [int(cost[part].sum()) for part in cut]
    assert count < 40 or max(loads) - min(loads) <= 4 * 5


@pytest.mark.parametrize("count", [1, 5, 40, 400])
def test_lanes_do_every_step_once_in_order_and_stay_full(count: int) -> None:
    cost = torch.randint(0, 6, (count,), generator=torch.Generator().manual_seed(count))
    cost[0] = 3
    plan = lanes(cost, 8)
    for i in range(count):
        call, lane = ((plan.row == i) & plan.active).nonzero().T
        assert len(lane.unique()) <= 1
        assert plan.to_go[call, lane].tolist() == list(range(int(cost[i]), 0, -1))
        assert (
            call.tolist() == list(range(int(call[0]), int(call[0]) + len(call)))
            if len(call)
            else True
        )
    least = max(-(-int(cost.sum()) // 8), int(cost.max()))
    assert len(plan.row) <= least + (count > 8)  # Graham: 4/3 at worst, here at most one call
    assert (plan.to_go <= cost[plan.row]).all()


class Recorder(GaussianDenoiser):
    rows: set[int]

    def denoise(self, x_t: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        self.rows = getattr(self, "rows", set()) | {len(x_t)}
        return super().denoise(x_t, t)


@pytest.mark.parametrize("count", [1, 4, 6])
def test_every_network_call_has_r_rows(count: int) -> None:
    recorder = Recorder()
    seen: set[int] = set()
    nets = networks(recorder)
    nets.classifier.register_forward_pre_hook(lambda _, args: seen.add(len(args[0])))
    Defense(Diffusion(Constant(40), Strided(20)), nets, rows=4)(images(count))
    Defense(Identity(), nets, rows=4)(images(count))
    assert recorder.rows == seen == {4}


def test_times_wait_on_the_left() -> None:
    times = Strided(20).times(torch.tensor([60, 0, 20]))
    assert times.tolist() == [[60, 0, 20], [40, 0, 20], [20, 0, 20], [0, 0, 0]]
    assert Strided(20).steps(torch.tensor([60, 0, 20])).tolist() == [3, 0, 1]


def test_a_computed_level_is_snapped_to_the_nearest_reachable_time() -> None:
    raw = torch.tensor([-3.0, 0.0, 9.9, 10.0, 29.9, 31.0, 995.0, 2000.0], dtype=torch.float64)
    assert Strided(20).snap(raw, 1000).tolist() == [0, 0, 0, 20, 20, 40, 1000, 1000]
    assert Strided(300).snap(torch.tensor([950.0]), 1000).tolist() == [900]


def test_a_configured_level_must_be_reachable() -> None:
    with pytest.raises(ConfigError, match=r"t\* = 110 is not reachable.*nearest valid t\* is 120"):
        Defense(Diffusion(Constant(110), Strided(20)), networks())
    with pytest.raises(ConfigError, match=r"outside the schedule's 0\.\.1000"):
        Defense(Diffusion(Constant(1200), Strided(20)), networks())


def test_shapes_of_a_prediction() -> None:
    out = Defense(Diffusion(Constant(40), Strided(20)), networks(), rows=4)(images(6))
    assert out.logits.shape == (6, 3) and out.image.shape == (6, *SHAPE)
    assert out.levels.shape == out.snapped.shape == (6, 1)
    assert out.score_norm.shape == out.nfe.shape == (6,)
    assert out.nfe.tolist() == [2] * 6


@pytest.mark.parametrize(
    ("bad", "why"),
    [
        (torch.rand(2, 3, 4, 4), r"expected images \(B, 1x4x4\), got \(2, 3, 4, 4\)"),
        (torch.full((2, *SHAPE), 2.0), r"got values in \[2, 2\]"),
        (torch.full((2, *SHAPE), -0.1), r"got values in \[-0.1, -0.1\]"),
        (torch.full((2, *SHAPE), torch.nan), "NaN"),
        (torch.zeros(2, *SHAPE, dtype=torch.uint8), "divide by 255"),
    ],
)
def test_images_a_defence_cannot_take(bad: torch.Tensor, why: str) -> None:
    with pytest.raises(ConfigError, match=why):
        Defense(Identity(), networks())(bad)
