"""One self-contained HTML page of finished runs: no network, no other file."""

from collections.abc import Iterator, Sequence

from adpur.judging.records import Records
from adpur.judging.scoreboard import Column
from adpur.judging.statistics import Estimate
from adpur.report import curves, html, published
from adpur.report.draw import plots
from adpur.report.draw.figures import draw_galleries
from adpur.report.markdown import label
from adpur.report.run import Run
from adpur.report.sweeps import attack_sweeps, row_sweeps
from adpur.report.table import DAGGER, named, notes, wide

RIGHT = "percent right"
ESTIMANDS = ("acc", "worst_of_n", "majority", "mean_logits", "claimed")


def page(runs: Sequence[Run]) -> str:
    """The comparison of all runs, then each run by itself."""
    title = "adpur: " + ", ".join(run.folder.resolve().name for run in runs)
    body = [*comparison(runs)]
    for run in runs:
        body += [html.heading(run.folder.resolve().name), *alone(run)]
    return html.document(title, body)


def comparison(runs: Sequence[Run]) -> Iterator[str]:
    """The table, and both plots of accuracy."""
    head, *lines = wide(runs)
    yield html.table(head, lines, ["warn" if DAGGER in line[0] else "" for line in lines])
    for note in dict.fromkeys(note for run in runs for note in notes(run)):
        yield html.paragraph(note)
    yield _forest(runs)
    points = dict(_points(runs))
    if points:
        caption = (
            "Accuracy and robustness: clean beside the attack a row is known by (its first norm, "
            "fresh noise, largest eps, the union where there are several attacks)."
        )
        figure = plots.scatter(points, "attacked, percent right")
        yield html.plot(figure, "scatter", caption)


def alone(run: Run) -> Iterator[str]:
    """Everything that is one run's own."""
    yield from _published(run)
    yield from _trust(run)
    yield from _curves(run)
    yield from _matrix(run)
    yield _estimands(run)
    for drawn in draw_galleries(run.outcomes, Records(run.folder)):
        name = f"{drawn.row}, {drawn.key.partition('/')[2]}"
        yield html.details(f"images of {name}", html.picture(drawn.file, name))
    yield html.details(f"identity, sha256 {run.sha256}", html.code(run.identity))


def _forest(runs: Sequence[Run]) -> str:
    rows = [(run, row) for run in runs for row in run.rows]
    columns: dict[str, list[Estimate | None]] = {}
    for k, (run, row) in enumerate(rows):
        for column, outcome in run.columns.items():
            if column.row == row:
                places = columns.setdefault(label(column), [None] * len(rows))
                places[k] = outcome.estimates()["acc"]
    figure = plots.forest([_told(runs, *at) for at in rows], columns)
    return html.plot(figure, "forest", "Mean over evaluation draws, 95 % interval over images.")


def _points(runs: Sequence[Run]) -> Iterator[tuple[str, tuple[Estimate, Estimate]]]:
    for run in runs:
        for row in run.rows:
            if attacked := curves.robust(run, row):
                clean = run.outcomes[Column(row)].estimates()["acc"]
                yield _told(runs, run, row), (clean, attacked[1].estimates()["acc"])


def _told(runs: Sequence[Run], run: Run, row: str) -> str:
    return named(run, row) if len(runs) == 1 else f"{run.folder.name}: {named(run, row)}"


def _published(run: Run) -> Iterator[str]:
    """Ours beside the paper's, where the run repeats a table."""
    if found := [one.cells() for one in published.beside(run)]:
        yield html.paragraph(f"Beside {run.about['table']}. {published.NOTE}")
        yield html.table(published.HEAD, found)


def _trust(run: Run) -> Iterator[str]:
    found = run.trust.findings
    if not found:
        yield html.paragraph("No trust report was made for this run.")
        return
    yield html.paragraph(f"Trust report, level {run.trust.level}: {run.trust.seconds:.0f} s.")
    head = ["check", "", "row", "attack", "measured", "verdict", "what it means", "what to do"]
    cells = [
        (f.check, f.title, f.row, f.attack, f.measured, f.grade, f.means, f.advice) for f in found
    ]
    yield html.table(head, cells, [f.grade for f in found])


def _curves(run: Run) -> Iterator[str]:
    """Every plot the run has something to show in."""
    name = run.folder.name
    if found := curves.against_eps(run):
        figure = plots.lines(found, "eps", RIGHT)
        yield html.plot(figure, f"{name} eps", "Accuracy against the radius; clean at 0.")
    figure = plots.lines(curves.against_looks(run), "n", RIGHT)
    caption = (
        "Worst of n: right on every one of n evaluation draws. It falls with n without any attack "
        "too (thin, hollow), so neither curve means anything without the other."
    )
    yield html.plot(figure, f"{name} looks", caption)
    for attack, eps in dict.fromkeys((c.attack, c.eps) for c in run.outcomes if not c.clean):
        if found := curves.against_queries(run, attack, eps):
            told = label(Column("", attack, eps))
            figure = plots.lines(found, "gradient query", "the attack's loss")
            caption = f"{told}: mean loss at each gradient query; still rising means stopped early."
            yield html.plot(figure, f"{name} loss {told}", caption)
    if found := curves.against_compute(run):
        figure = plots.lines(found, "rows per image", RIGHT, log=True, joined=False)
        caption = (
            "Accuracy against compute: rows of the defence differentiated or evaluated, mean over "
            f"images; a union costs the sum of its attacks. {_costs(run)}."
        )
        yield html.plot(figure, f"{name} compute", caption)
    for kind, found_at in (("blocks", attack_sweeps(run)), ("rows", row_sweeps(run))):
        for k, (setting, found) in enumerate(found_at):
            caption = f"Accuracy against {setting}, of {kind} that differ in nothing else."
            figure = plots.lines(found, setting, RIGHT)
            yield html.plot(figure, f"{name} {kind} {setting} {k}", caption)
    for row in run.rows:
        if found := curves.against_level(run, row):
            figure = plots.lines(found, "t(x)", RIGHT)
            caption = (
                f"{row}: share of right draws in ten bins of their level t(x); the area of a disc "
                "is the share of draws in it."
            )
            yield html.plot(figure, f"{name} level {row}", caption)


def _costs(run: Run) -> str:
    """Which point is which attack."""
    asked = {f"{label(c)} {o.compute:.0f}": None for c, o in run.columns.items() if not c.clean}
    return "; ".join(asked)


def _matrix(run: Run) -> Iterator[str]:
    """Rows whose images were all attacked, so that strips share their images."""
    count, panels = run.identity["data"]["images"], []
    for row in run.rows:
        shown = [(Column(row), run.outcomes[Column(row)])]
        shown += [found] if (found := curves.robust(run, row)) else []
        panels += [
            plots.Panel(f"{row}\n{label(c)}", o.correct) for c, o in shown if len(o.images) == count
        ]
    if panels:
        caption = (
            "The draw matrix: an image a column, an evaluation draw a line, right is light and "
            "wrong is dark. Stripes across a strip are luck of a draw; columns are of the image."
        )
        yield html.plot(plots.matrix(panels), f"{run.folder.name} matrix", caption)


def _estimands(run: Run) -> str:
    """Every estimand of every column: worst, majority and mean logits beside those of clean."""
    head = ["row", "attack", *ESTIMANDS, "images", "draws", "rows per image", "seconds"]
    lines = []
    for column, outcome in sorted(run.columns.items(), key=lambda kv: run.rows.index(kv[0].row)):
        told, (images, draws) = outcome.estimates(), outcome.correct.shape
        spent = f"{run.seconds[column]:.0f}" if column in run.seconds else "-"
        shown = [str(told.get(name, "-")) for name in ESTIMANDS]
        cost = [str(images), str(draws), f"{outcome.compute:.0f}", spent]
        lines.append([named(run, column.row), label(column), *shown, *cost])
    return html.details("every estimand", html.table(head, lines))
