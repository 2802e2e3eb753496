"""`adpur report RUN...`: finished runs as tables, curves, JSON and one page, side by side."""

from argparse import ArgumentParser
from collections.abc import Sequence
from pathlib import Path

from adpur.report.draw.figures import draw_levels
from adpur.report.page import page
from adpur.report.paired import paired
from adpur.report.published import comparison
from adpur.report.run import Run, read_run
from adpur.report.table import notes, show_run, table, write_tables

PAGE = "report.html"


def main(argv: Sequence[str]) -> int:
    """Print one table for all runs, and write it with everything behind it."""
    parser = ArgumentParser("adpur report", description=__doc__)
    parser.add_argument("runs", nargs="+", type=Path, help="run folders")
    parser.add_argument("--out", type=Path, help="write here; the run itself, or report beside it")
    parser.add_argument("--against", metavar="ROW", help="paired differences from this row only")
    args = parser.parse_args(argv)
    runs = [read_run(folder) for folder in args.runs]
    if args.against is not None:
        for run in runs:
            print("\n".join(paired(run, args.against)))
        return 0
    for run in runs:
        list(draw_levels(run.outcomes, run.folder))  # each is written as it is drawn
    alone = len(runs) == 1
    folder = args.out or (args.runs[0] if alone else args.runs[0].parent / "report")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / PAGE).write_text(page(runs))
    if alone and folder == args.runs[0]:
        show_run(folder)
    else:
        show_all(runs, folder)
    print(f"page:    {folder / PAGE}")
    return 0


def show_all(runs: Sequence[Run], folder: Path) -> None:
    """Print the tables of several runs and write them into a folder of their own."""
    said = dict.fromkeys(note for run in runs for note in notes(run))
    papers = [line for run in runs for line in comparison(run)]
    text = "\n".join([*table(runs), "", *said, *papers])
    print(text)
    write_tables(runs, text, folder)
    print(f"\ntables:  {folder}/table.md, {folder}/table.csv, {folder}/results.json")
