"""A finished run made of records alone: 40 images, 6 draws, three rows, seven blocks."""

from pathlib import Path
from typing import Any

import numpy as np

from adpur.judging.records import Records, describe
from adpur.judging.scoreboard import Column, Score
from adpur.threat.knowledge import Knowledge
from adpur.trust.finding import Finding, Grade
from adpur.trust.report import Findings

IMAGES, DRAWS = 40, 6
ROWS = ("plain", "ddpm t=50", "ddpm t=100")


def attack(name: str = "PGD", eps: float = 8 / 255, norm: str = "Linf", **more: Any) -> dict:
    return {"class": name, "eps": eps, "norm": {"class": norm}, "eot": 4, "steps": 20} | more


def block(*attacks: dict, gradient: str = "Exact", pool: int | None = None) -> dict:
    return {
        "attacks": list(attacks),
        "gradient": {"class": gradient},
        "knowledge": describe(Knowledge(pool)),
        "levels": {"class": "LevelGradient"},
        "cosine": 0,
        "only": list(ROWS),
    }


AUTO = [{"class": name} for name in ("APGD", "APGD", "FAB", "Square")]
BLOCKS = {
    "pgd": block(attack(eps=4 / 255), attack()),
    "pgd50": block(attack(steps=50)),
    "bpda": block(attack(), gradient="BPDA"),
    "l2": block(attack(eps=0.5, norm="L2")),
    "known": block(attack(), pool=6),
    "legacy": block(attack("Legacy")),
    "standard": block(attack("Worst", attacks=AUTO)),
}
IDENTITY = {
    "defenses": {
        row: {"class": "Row", "purifier": {"class": "Diffusion", "t": t}, "ensemble": {"votes": 1}}
        for row, t in zip(ROWS, (0, 50, 100), strict=True)
    },
    "networks": {row: {"classifier": "ab" * 32} for row in ROWS},
    "attacks": BLOCKS,
    "data": {"class": "Toy", "split": "test", "images": IMAGES, "sha256": "cd" * 32},
    "draws": DRAWS,
    "seed": 0,
    "versions": {"adpur": "0"},
}
IDENTITY["defenses"]["plain"]["purifier"] = {"class": "Identity"}


def columns() -> list[Column]:
    made = [Column(row) for row in ROWS]
    made += [Column(row, "clean (known)") for row in ROWS]
    for name, one in BLOCKS.items():
        made += [Column(row, name, a["eps"]) for row in ROWS for a in one["attacks"]]
    return made


def scored(column: Column, seed: int = 0) -> list[Score]:
    """Draws of image i are right with a chance of its own, less under larger eps."""
    rng = np.random.default_rng([seed, *map(ord, str(column))])
    return [one(column, i, rng) for i in range(IMAGES)]


def one(column: Column, index: int, rng: np.random.Generator) -> Score:
    attacked = not column.clean
    chance = (1 - index / (2 * IMAGES)) * (1 - 12 * min(column.eps, 0.05))
    right = rng.random(DRAWS) < chance
    level = [] if column.row == "plain" else [float(rng.uniform(10, 90))]
    predictions = (1 - right).tolist()
    return Score(
        index=100 + index, label=0, predictions=predictions, margin=[0.0] * DRAWS,
        t=[level] * DRAWS, snapped=[level] * DRAWS, score_norm=[None] * DRAWS,
        nfe=0.0 if column.row == "plain" else 5.0, size=column.eps,
        mean_logits=np.cumsum(predictions).tolist(), strength=float(rng.uniform(0, 10)),
        loss=[0.1 * k + index for k in range(20)] if attacked else [],
        gradients=80 * attacked, queries=5 * attacked,
        claimed=0.25 if column.attack == "legacy" else None,
    )  # fmt: skip


FINDINGS = [
    Finding(
        "T7",
        "loss rises",
        "ddpm t=50",
        "pgd",
        "91.2 %",
        Grade.WARN,
        "<the> loss & its rise",
        "more",
    ),
    Finding("T2", "null attack", "plain", "pgd", "0 of 4 images differ", Grade.PASS),
]


def finish(folder: Path, seed: int = 0, trusted: bool = True, only: str = "") -> Path:
    """Write the run; `only` leaves the blocks out whose name does not begin so."""
    blocks = {k: v for k, v in BLOCKS.items() if k.startswith(only)}
    chosen = [c for c in columns() if c.attack == "clean" or c.attack in blocks]
    records = Records(folder)
    about = {"architectures": {row: {"classifier": "Classifier(ResNet)"} for row in ROWS}}
    records.claim(IDENTITY | {"seed": seed, "attacks": blocks}, chosen, about)
    for column in chosen:
        records.add(column, scored(column, seed))
        records.time(column, IMAGES, 2.0)
    if trusted:
        for found in FINDINGS:
            Findings(folder).add(found, seconds=1.75)
    return folder
