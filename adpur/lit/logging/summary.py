"""What a row's W&B run says of it, under keys that are the same for all rows."""

from typing import Any

from adpur.judging.scoreboard import Column, Outcome
from adpur.judging.threats import headline, unions


def row_summary(
    row: str, outcomes: dict[Column, Outcome], seconds: dict[Column, float], blocks: dict[str, Any]
) -> dict[str, float]:
    """The fixed keys of a row: clean, and robust by its `headline`: the union where there is one.

    Each attack and union stands beside them under its own name.
    """
    found = {c: o for c, o in outcomes.items() if c.row == row}
    every = {c: o.summary() for c, o in (found | unions(found, blocks)).items()}
    named = {"clean": every[Column(row)]}
    if (column := headline(row, found, blocks)) is not None:
        named["robust"] = every[column]
    flat = {f"{c.attack}/{c.eps:g}/acc": s["acc"] for c, s in every.items() if not c.clean}
    for name, s in named.items():
        flat |= {
            f"{name}/acc": s["acc"],
            f"{name}/ci_lo": s["acc_lo"],
            f"{name}/ci_hi": s["acc_hi"],
            f"{name}/worst_of_n": s["worst_of_n"],
            f"{name}/majority": s["majority"],
        }
    spent = sum(v for c, v in seconds.items() if c.row == row)
    return flat | {"nfe": every[Column(row)]["nfe"], "seconds": spent}
