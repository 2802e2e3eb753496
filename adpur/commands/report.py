"""`adpur report RUN...`: the tables and plots of finished runs, again and side by side."""

from argparse import ArgumentParser
from collections.abc import Sequence
from pathlib import Path

from adpur.figures import draw_galleries, draw_levels
from adpur.records import Records
from adpur.report.table import footnote, paired, read_run, show_run, table, write_csv


def main(argv: Sequence[str]) -> int:
    """Print one table for all runs; `--csv` and `--against` tell more."""
    parser = ArgumentParser("adpur report", description=__doc__)
    parser.add_argument("runs", nargs="+", type=Path, help="run folders")
    parser.add_argument("--csv", type=Path, help="write every estimand here")
    parser.add_argument("--against", metavar="ROW", help="paired differences from this row")
    args = parser.parse_args(argv)
    if args.against is not None:
        for folder in args.runs:
            print("\n".join(paired(read_run(folder), args.against)))
        return 0
    for folder in args.runs:
        run = read_run(folder)
        list(draw_levels(run.outcomes, folder))  # each is written as it is drawn
        list(draw_galleries(run.outcomes, Records(folder)))
    if len(args.runs) == 1 and args.csv is None:
        show_run(args.runs[0])
        return 0
    runs = [read_run(folder) for folder in args.runs]
    print("\n".join(table(runs)))
    for note in dict.fromkeys(footnote(run) for run in runs):
        print("\n" + note)
    if args.csv is not None:
        write_csv(runs, args.csv)
        print(f"\nevery estimand: {args.csv}")
    return 0
