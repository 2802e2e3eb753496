"""`adpur dashboard GROUP...`: save a W&B view that compares the rows of some evaluations."""

from argparse import ArgumentParser
from collections.abc import Sequence

from adpur.lit.logging.dashboard import packages, workspace
from adpur.lit.logging.loggers import signed_in


def main(argv: Sequence[str]) -> int:
    """Build the view and save it; nothing is asked, and no run is touched."""
    parser = ArgumentParser("adpur dashboard", description=__doc__)
    parser.add_argument("groups", nargs="+", metavar="GROUP", help="a run folder's name")
    parser.add_argument("--project", default="adpur", help="of the runs (default adpur)")
    parser.add_argument("--entity", help="a W&B user or team (default: the key's own)")
    args = parser.parse_args(argv)
    packages()  # said first: it needs no network
    account = signed_in()
    view = workspace(args.groups, args.project, args.entity or account)
    print(f"view: {view.save().url}")
    return 0
