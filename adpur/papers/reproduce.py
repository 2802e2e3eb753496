"""`adpur reproduce [TABLE ...]`: a table of a paper, once all it needs is there, or a list."""

import csv
import difflib
import os
import re
import shlex
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from adpur import shipped
from adpur.errors import ConfigError

NETWORKS = "networks.csv"
WHERE = "in the working folder or under $ADPUR_WEIGHTS_PATH"


class Table(NamedTuple):
    """A shipped config of a published table, and what its header says.

    Attributes:
        stage: what runs it, `test` or `fit`.
        title: its first line.
        notes: the header's other lines by their first word, `data` and `networks` among them.
    """

    file: Path
    stage: str
    title: str
    notes: dict[str, str]

    @property
    def networks(self) -> list[str]:
        """The weights folders it reads."""
        return self.notes["networks"].split(", ")


def main(argv: Sequence[str]) -> int:
    """List the tables, or run one; flags are those of its stage."""
    if not argv:
        print(*listing(), sep="\n")
        return 0
    name, *flags = argv
    table = find(name)
    if lacking := list(missing(table, flags)):
        print(f"adpur: {name} cannot run yet:", *lacking, sep="\n  ", file=sys.stderr)
        return 2
    from adpur.cli.run import run

    return run(table.stage, ["-c", str(table.file), *flags])


def listing() -> Iterator[str]:
    """Two lines a table: what it is, and what it needs."""
    for table in tables():
        yield f"{table.file.stem:26} {table.stage}: {table.title}"
        yield f"{'':26} needs {table.notes['data']}; {table.notes['networks']}"
    yield (
        f"\nadpur reproduce TABLE [--dry-run, --data.limit=N, --only, --shard ...]. Networks are "
        f"folders {WHERE}: adpur weights names sources, {NETWORKS} fits."
    )


def tables() -> list[Table]:
    """All of them, by paper and number."""
    return [read(file) for file in sorted(shipped.shipped_papers().glob("*.yaml"), key=_order)]


def _order(file: Path) -> tuple[str, int, str]:
    paper, _, table = file.stem.partition("-table")
    number = re.match(r"\d+", table)
    return paper, int(number[0]) if number else 99, table


def find(name: str) -> Table:
    """The table of a name, or the nearest names."""
    known = {file.stem: file for file in shipped.shipped_papers().glob("*.yaml")}
    if name not in known:
        near = difflib.get_close_matches(name, known) or ["ssni-table4"]
        raise ConfigError(f"no table {name!r}; nearest: {', '.join(near)} (adpur reproduce lists)")
    return read(known[name])


def read(file: Path) -> Table:
    """The header of a config: comments up to its first key, indented ones continuing a line."""
    told: list[str] = []
    for line in file.read_text().splitlines():
        if not line.startswith("# "):
            break
        if line.startswith("#   "):
            told[-1] += " " + line[4:].strip()
        else:
            told.append(line[2:])
    stage, _, title = told[0].partition(": ")
    notes = (line.partition(": ") for line in told[1:])
    return Table(file, stage, title, {key: text for key, mark, text in notes if mark})


def missing(table: Table, flags: Sequence[str]) -> Iterator[str]:
    """A line for each thing that is not there, and how to get it; flags may name others."""
    given = {flag.split("=")[0] for flag in flags}
    variable = table.notes["data"]
    if not given & {"--data", "--data.root"} and not os.environ.get(variable):
        yield f"data: set {variable} to the folder that holds them, or --data.root"
    if not any(flag.startswith("--model.networks") for flag in given):
        for name in table.networks:
            yield from _network(name)
        if not any(flag.startswith("--model.defenses") for flag in given):
            yield from _score_norms(table)


def _network(name: str) -> Iterator[str]:
    from adpur.models.checkpoints.files import find_weights

    try:
        find_weights(name)
    except ConfigError:
        yield f"network {name}: {recipe(name)}"


def recipe(name: str) -> str:
    """How a weights folder is made: from a published file, or by a fit."""
    from adpur.models.checkpoints.catalogue import KNOWN

    for known in KNOWN:
        if known.name == name:
            if known.repo:
                return f"adpur fetch {name} ({known.source}; {known.licence})"
            use = known.use.replace("FILE", known.file).replace("FOLDER", name)
            how = f"adpur fetch {name} --url ADDRESS, or {use}; as folder {name} {WHERE}"
            return f"{known.file} of {known.source}; {how}"
    return f"adpur fit {shlex.join(fit(name))}"


def fit(folder: str) -> list[str]:
    """The command line of the fit that writes a folder of `networks.csv`."""
    with (shipped.shipped_papers() / NETWORKS).open(newline="") as stream:
        known = {line["folder"]: line["fit"] for line in csv.DictReader(stream)}
    if folder not in known:
        raise ConfigError(f"{NETWORKS} has no {folder}; there is: {', '.join(known)}")
    place = [f"--model.export={folder}", f"--run=runs/fits/{Path(folder).name}"]
    return ["-c", *shlex.split(known[folder]), *place]


def _score_norms(table: Table) -> Iterator[str]:
    """Statistics SSNI rows lack; of networks that are there."""
    from adpur.models.checkpoints.files import find_weights
    from adpur.purify.levels.reference import reference

    for weights, horizon, levels, continuous, noised in sorted(score_norms(_yaml(table.file))):
        try:
            find_weights(weights)
        except ConfigError:
            continue  # said already
        try:
            reference(weights, horizon, levels, continuous, noised)
        except ConfigError:
            yield f"score norms: {table.notes['score norms']}"


Measured = tuple[str, int, int, bool, bool]


def score_norms(tree: Any) -> set[Measured]:
    """What `reference` is asked for by every `adpur.ssni` and `adpur.ssni_released` of a config."""
    if isinstance(tree, list):
        return set().union(*map(score_norms, tree))
    if not isinstance(tree, dict):
        return set()
    found = set().union(*map(score_norms, tree.values()))
    if tree.get("class_path") == "adpur.ssni":
        given = tree["init_args"]
        levels = given.get("levels", 20)
        found.add((given["weights"], given.get("horizon", 20), levels, False, True))
    if tree.get("class_path") == "adpur.ssni_released":
        given = tree["init_args"]
        horizon, single = given.get("horizon", 20), given.get("single", False)
        found.add((given["weights"], horizon, 1 if single else horizon, True, not single))
    return found


def _yaml(file: Path) -> Any:
    import yaml

    return yaml.safe_load(file.read_text())
