"""The one line a paper should quote."""

from adpur.judging import protocol
from adpur.judging.records import differences
from adpur.judging.scoreboard import Column, Outcome
from adpur.judging.trial import AttackBlock
from adpur.report.run import Run
from adpur.threat.ball import L2, Linf

NORMS = {"Linf": Linf(), "L2": L2()}


def quotes(run: Run) -> list[str]:
    """For each row and radius of the standard protocol its line, and why it may not be quoted."""
    lines = []
    for row in run.rows:
        exact = [c for c in run.outcomes if c.row == row and c.attack == protocol.EXACT]
        lines += [_line(run, row, column.eps) for column in exact]
    return lines


def _line(run: Run, row: str, eps: float) -> str:
    clean = run.outcomes[Column(row)]
    norm = run.identity["attacks"][protocol.EXACT]["attacks"][0]["norm"]["class"]
    blocks = protocol.blocks(eps, NORMS[norm], run.identity["data"]["classes"])
    known = {block.name: block for block in blocks}
    if run.identity["defenses"][row]["purifier"]["class"] == "Identity":
        del known[protocol.APPROXIMATE]
    columns = [Column(row, name, eps) for name in known]
    members = [run.outcomes[c] for c in columns if c in run.outcomes]
    union = Outcome.union([clean, *members])
    images, draws = union.predictions.shape
    said = protocol.missing(images, draws, run.trust.level)
    said += [f"no block {c.attack}" for c in columns if c not in run.outcomes]
    said += [f"{name} is another attack" for name in known if _differs(run, known[name])]
    said += [f"{f.check} {f.title} ({f.grade})" for f in run.warnings(row)]
    kept = f"  [not to be quoted: {'; '.join(said)}]" if said else ""
    told, before = union.estimates(), clean.estimates()
    numbers = "; ".join(
        f"{name} of {draws} {told[key]} (clean {before[key]})"
        for key, name in (("acc", "mean"), ("worst_of_n", "worst"))
    )
    return f"{protocol.NAME}, {row}, {norm} eps {eps:.4g}, {images} images: {numbers}{kept}"


def _differs(run: Run, block: AttackBlock) -> bool:
    """Whether the run's block of this name is not the protocol's."""
    recorded = run.identity["attacks"].get(block.name)
    if recorded is None:
        return False
    wanted = block.described()
    changed = any(any(differences(recorded[key], wanted[key])) for key in ("attacks", "gradient"))
    return changed or recorded["knowledge"]["pool"] is not None
