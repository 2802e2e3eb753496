"""Every check of the trust report catches its planted failure, and is silent on sound defences."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from problems import LinearClassifier, WavyDenoiser, images
from torch import Tensor, nn
from toy import DIFFPURE, SSNI, rows, run

from adpur import (
    BPDA,
    PGD,
    Attack,
    AttackError,
    ConfigError,
    Constant,
    CrossEntropy,
    Defense,
    DiffAttack,
    DiffHammer,
    Diffusion,
    Evaluation,
    Exact,
    GradientMode,
    Identity,
    Linf,
    Loss,
    Networks,
    Noise,
    Norm,
    OneShot,
    Oracle,
    Purifier,
    RandomNoise,
    Robustness,
    Row,
    Square,
    Strided,
)
from adpur.judging.arithmetic import Computed
from adpur.judging.judge import Draws, judge
from adpur.judging.scoreboard import Outcome
from adpur.judging.trial import Examples, Trial
from adpur.trust.finding import Evidence, Finding, Grade, Level, Measured, Recorded
from adpur.trust.report import Findings, probes, read_report, reviews

PGD8 = PGD(eps=0.3, steps=8, eot=2)
X = images(16, torch.float32)


def examined(
    classifier: nn.Module | None = None,
    attack: Attack = PGD8,
    purifier: Purifier = Identity(),
    gradient: GradientMode = Exact(),
    radii: tuple[float, ...] = (0.3,),
    others: dict[str, Trial] | None = None,
    draws: int = 4,
    only: str | None = None,
    computed: Computed = Computed({"AVX2": 4}),
) -> dict[str, Finding]:
    """A whole evaluation of one block in memory, then every check, by number."""
    networks = Networks(classifier or LinearClassifier(), WavyDenoiser())
    defense = Defense(purifier, networks, 32)
    y = LinearClassifier()(X).argmax(1)
    scene = Examples(X, y, Noise(torch.arange(len(X)), seed=2))
    asked = Draws(draws, 4, defense.random(X))
    trial = Trial(defense, replace(attack, eps=max(radii)), gradient, random=asked.random)

    def outcome(trial: Trial) -> Outcome:
        return Outcome.of(judge(defense, scene, asked, trial).scores)

    clean = outcome(Trial(defense, knowledge=trial.knowledge))
    attacked = {r: outcome(replace(trial, attack=replace(attack, eps=r))) for r in radii}
    compared = {n: outcome(replace(t, defense=defense)) for n, t in (others or {}).items()}
    seen = Evidence("row", "block", trial, defense, scene, asked)
    record = Recorded(clean, attacked, compared, computed)
    said = {c: c.probe(seen) for c in probes(Level.FULL) if only in (None, c.check)}
    read = {c: c.review(seen, record) for c in reviews(Level.FULL) if only in (None, c.check)}
    return {c.check: c.found(seen, measured) for c, measured in (said | read).items()}


def bad(found: dict[str, Finding]) -> set[str]:
    return {check for check, f in found.items() if f.grade in (Grade.WARN, Grade.FAIL)}


@pytest.mark.parametrize(
    "sound",
    [
        {},
        {"classifier": LinearClassifier(scale=3.0)},
        {"purifier": DIFFPURE},
        {"purifier": SSNI, "gradient": BPDA()},
        {"purifier": Diffusion(Constant(60), OneShot())},
        {"purifier": DIFFPURE, "attack": DiffAttack(PGD8, 0.1)},
        {"purifier": DIFFPURE, "attack": DiffHammer(steps=8, eot=4, select=4)},
    ],
    ids=["linear", "steep", "diffpure", "ssni-bpda", "one-shot", "diffattack", "diffhammer"],
)
def test_sound_defences_are_left_alone(sound: dict[str, Any]) -> None:
    assert not bad(examined(**sound))


@dataclass(frozen=True)
class Wrapped(Attack):
    """PGD, and then something an attack must not do."""

    eps: float = 0.3
    norm: Norm = Linf()
    spoil: Callable[[Oracle, Tensor, Tensor], Tensor] = lambda oracle, x, found: found
    steps: int = 8
    eot: int = 2
    loss: Loss = CrossEntropy()

    def run(self, oracle: Oracle, x: Tensor) -> Tensor:
        inner = PGD(self.eps, steps=self.steps, eot=self.eot, loss=self.loss)
        return self.spoil(oracle, x, inner.run(oracle, x))


def leak(oracle: Oracle, x: Tensor, found: Tensor) -> Tensor:
    torch.manual_seed(0)
    return found


def skip(oracle: Oracle, x: Tensor, found: Tensor) -> Tensor:
    odd = oracle.noise.index % 2 == 1
    return torch.where(odd.view(-1, 1, 1, 1), x, found)


def by_batch(oracle: Oracle, x: Tensor, found: Tensor) -> Tensor:
    return found + 0.01 * x.mean()


def outside(oracle: Oracle, x: Tensor, found: Tensor) -> Tensor:
    return x + 1.5 * (found - x)


def only_small(oracle: Oracle, x: Tensor, found: Tensor) -> Tensor:
    return x if (found - x).abs().max() > 0.25 else found


def only_fresh(oracle: Oracle, x: Tensor, found: Tensor) -> Tensor:
    return found if oracle.knowledge.pool is None else x


class Descent(Loss):
    def loss(self, logits: Tensor, y: Tensor, target: Tensor | None = None) -> Tensor:
        return -CrossEntropy().loss(logits, y)


class Softmax(LinearClassifier):
    def forward(self, x: Tensor) -> Tensor:
        return torch.softmax(super().forward(x), 1)


class Flattened(LinearClassifier):
    """No gradient where the image is dark: a masked half of the data."""

    def forward(self, x: Tensor) -> Tensor:
        dark = x.flatten(1).mean(1).view(-1, 1, 1, 1) < 0.5
        return super().forward(torch.where(dark, x.detach(), x))


class Rippled(LinearClassifier):
    """Another slope at every draw: two copies say nothing of a third."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(torch.sin(40 * x))


class Detached(LinearClassifier):
    """Most of the image is cut from the graph: what is left is right, and not all."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(torch.cat((x[:, :, :1], x[:, :, 1:].detach()), 2))


class Quantised(LinearClassifier):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward((x * 4).round() / 4)


class Unkeyed(LinearClassifier):
    """Draws from the global generator: nobody can replay it."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x + 2 * torch.randn_like(x))


@dataclass(frozen=True)
class Pretended(GradientMode):
    """Calls itself exact and looks at another purifier."""

    purifier: Purifier = Diffusion(Constant(400), Strided(200))
    exact, draws = True, False

    def view(self, purifier: Purifier) -> Purifier:
        return self.purifier


SLOW = {
    "attack": PGD(eps=0.6, step_size=0.1, steps=1, eot=1, random_start=False),
    "radii": (0.6,),
}

PLANTED: list[tuple[str, dict[str, Any]]] = [
    ("T1", {"attack": Wrapped(spoil=outside)}),
    ("T2", {"classifier": Unkeyed()}),
    ("T4", {"attack": Wrapped(spoil=leak)}),
    ("T5", {"attack": Wrapped(spoil=by_batch)}),
    ("T6", {"attack": Wrapped(spoil=skip)}),
    ("T7", {"attack": Wrapped(loss=Descent())}),
    ("T8", {"classifier": Flattened()}),
    ("T8", {"classifier": Rippled(), "purifier": DIFFPURE}),
    ("T9", {"purifier": DIFFPURE, "gradient": Pretended()}),
    ("T9", {"classifier": Detached()}),
    ("T10a", {"attack": Wrapped(spoil=only_small), "radii": (0.2, 0.4)}),
    ("T10b", {"attack": Wrapped(spoil=only_small)}),
    ("T11", SLOW),
    ("T12a", SLOW | {"others": {"other": Trial(None, PGD8)}}),  # type: ignore[arg-type]
    ("T12b", SLOW),
    ("T13", {"purifier": DIFFPURE, "attack": Wrapped(spoil=only_fresh)}),
    ("T14", SLOW | {"purifier": DIFFPURE}),
    ("T16", {"purifier": DIFFPURE, "draws": 1}),
    ("T17", {"classifier": Softmax()}),
    ("T20", {"computed": Computed({"cuda H100": 3, "AVX2": 1}, ("on two kinds",), mixed=True)}),
]


@pytest.mark.parametrize(
    ("check", "plant"), PLANTED, ids=[f"{c}-{k}" for k, (c, _) in enumerate(PLANTED)]
)
def test_a_planted_failure_is_caught(check: str, plant: dict[str, Any]) -> None:
    found = examined(**plant, only=check)[check]
    assert found.grade in (Grade.WARN, Grade.FAIL), found.measured
    assert found.means
    assert found.advice


def test_every_check_that_can_fail_has_a_plant() -> None:
    judged = {c.check for c in (*probes(Level.FULL), *reviews(Level.FULL)) if c.means}
    assert judged == {check for check, _ in PLANTED}


@pytest.mark.parametrize("weak", [RandomNoise(points=2), Square(steps=2, draws=2)], ids=repr)
def test_a_baseline_need_not_be_the_strongest(weak: Attack) -> None:
    for check in ("T10b", "T12a", "T12b", "T13"):
        found = examined(
            purifier=DIFFPURE, attack=weak, others={"pgd": Trial(None, PGD8)}, only=check
        )  # type: ignore[arg-type]
        assert found[check].grade is Grade.INFO


@pytest.mark.parametrize("check", [c.check for c in reviews(Level.FULL)])
def test_a_block_at_eps_0_is_no_case_for_warnings(check: str) -> None:
    assert not bad(examined(radii=(0.0,), only=check))


def test_a_quantiser_stops_the_attack_at_once() -> None:
    with pytest.raises(AttackError, match="zero"):
        examined(classifier=Quantised(), only="T1")


def one_row(classifier: nn.Module) -> dict[str, Any]:
    nets = {"default": Networks(classifier, WavyDenoiser())}
    return {"networks": nets, "defenses": {"bare": Row(Identity())}, "draws": 2, "rows": 16}


def test_a_run_reports_once_and_says_what_it_cost(tmp_path: Path) -> None:
    block = Robustness("pgd", PGD(eps=0.3, steps=2, eot=1))
    for _ in range(2):
        run(tmp_path, Evaluation(**one_row(LinearClassifier())), callbacks=[block])
    asked = Findings(tmp_path).entries()
    assert len(asked) == len([*probes(Level.QUICK), *reviews(Level.QUICK)])
    text = "\n".join(read_report(tmp_path).lines(60.0))
    assert "% of the run's" in text
    assert "| T2 null attack equals clean | pass |" in text


def test_what_fails_before_the_run_stops_it(tmp_path: Path) -> None:
    block = Robustness("pgd", Wrapped(spoil=leak))
    with pytest.raises(AttackError, match=r"T4 .*bare / pgd: torch moved"):
        run(tmp_path, Evaluation(**one_row(LinearClassifier())), callbacks=[block])
    assert not rows(tmp_path)
    mended = Robustness("pgd", Wrapped())  # another identity, which nothing recorded stands against
    run(tmp_path, Evaluation(**one_row(LinearClassifier())), callbacks=[mended])
    assert not any(f.warns for f in read_report(tmp_path).findings)


def test_what_failed_is_asked_again(tmp_path: Path) -> None:
    manifest = tmp_path / "manifest.json"
    manifest.write_text('{"sha256": "one"}')
    check, seen = probes(Level.QUICK)[0], Evidence("bare", "pgd", *[None] * 4)  # type: ignore[arg-type]
    assert not Findings(tmp_path).knows(check, seen)
    for grade in (Grade.FAIL, Grade.PASS):
        Findings(tmp_path).add(check.found(seen, Measured(grade, "")), 1.0)
        assert Findings(tmp_path).knows(check, seen) is (grade is Grade.PASS)
    manifest.write_text('{"sha256": "two"}')
    assert not Findings(tmp_path).knows(check, seen)
    assert read_report(tmp_path).level is Level.NONE


def test_a_row_that_only_looked_deterministic_is_refused() -> None:
    defense = Defense(DIFFPURE, Networks(LinearClassifier(), WavyDenoiser()), 8)
    scene = Examples(X, LinearClassifier()(X).argmax(1), Noise(torch.arange(16)))
    with pytest.raises(ConfigError, match="random: true"):
        judge(defense, scene, Draws(4, 2, False))
