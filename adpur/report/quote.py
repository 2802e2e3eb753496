"""The one line a paper should quote."""

from adpur.metrics.scoreboard import Column, Outcome
from adpur.metrics.standard import BLOCKS, NAME, missing
from adpur.report.run import Run


def quotes(run: Run) -> list[str]:
    """For each row and radius of the standard protocol its line, and why it may not be quoted."""
    lines = []
    for row in run.rows:
        mine = [c for c in run.outcomes if c.row == row and c.attack in BLOCKS.values()]
        for eps in dict.fromkeys(c.eps for c in mine):
            members = [run.outcomes[c] for c in mine if c.eps == eps]
            lines.append(_line(run, row, eps, Outcome.union([run.outcomes[Column(row)], *members])))
    return lines


def _line(run: Run, row: str, eps: float, union: Outcome) -> str:
    images, draws = union.predictions.shape
    told, clean = union.estimates(), run.outcomes[Column(row)].estimates()
    norm = run.identity["attacks"][BLOCKS["exact"]]["attacks"][0]["norm"]["class"]
    numbers = "; ".join(
        f"{name} {told[key]} (clean {clean[key]})"
        for key, name in (("acc", f"mean of {draws}"), ("worst_of_n", f"worst of {draws}"))
    )
    said = missing(images, draws, run.trust.level)
    said += [f"{f.check} {f.title} ({f.grade})" for f in run.warnings(row)]
    kept = f"  [not to be quoted: {'; '.join(said)}]" if said else ""
    return f"{NAME}, {row}, {norm} eps {eps:.4g}, {images} images: {numbers}{kept}"
