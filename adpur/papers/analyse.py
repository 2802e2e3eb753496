"""`adpur analyse NAME -c CONFIG`: a figure of the papers, drawn for the rows of a test config.

Options after ` -- ` are those of `adpur test`: `... -- --data.limit=8 --vary '{...}'`.
"""

import difflib
import re
import sys
import time
from collections.abc import Sequence
from dataclasses import fields
from importlib import import_module
from pathlib import Path

import yaml
from jsonargparse import ArgumentError, ArgumentParser, Namespace, set_loader

from adpur.cli.explain import explain
from adpur.cli.values import load_yaml
from adpur.errors import ConfigError
from adpur.papers.addt.eot_direction import EotDirection
from adpur.papers.addt.knowledge_accuracy import KnowledgeAccuracy
from adpur.papers.addt.landscape import LossLandscape
from adpur.papers.addt.ranks import RankHistograms
from adpur.papers.addt.semi import SemiLoss
from adpur.papers.addt.trajectories import Trajectories
from adpur.papers.analysis import Analysis, write
from adpur.papers.revpure.compression import Compression
from adpur.papers.revpure.geometry import PathGeometry
from adpur.papers.revpure.lengths import LengthAccuracy, SubsequenceAccuracy
from adpur.papers.revpure.matrices import DirectionMatrices
from adpur.papers.revpure.pictures import PurificationStrips
from adpur.papers.revpure.spectrum import DirectionSpectrum
from adpur.papers.scoreopt.agreement import GradientAgreement
from adpur.papers.scoreopt.optimising import EotAccuracy, ObjectiveWeight, StepsAccuracy
from adpur.papers.ssni.curves import Reweighting
from adpur.papers.ssni.norms import NormOverEps, NormOverTime
from adpur.papers.ssni.reweighting import BiasAccuracy, TauAccuracy
from adpur.papers.ssni.strips import LevelStrips
from adpur.papers.subject import identity, subjects

ANALYSES: dict[str, type[Analysis]] = {
    # SSNI
    "norm-eps": NormOverEps,
    "norm-time": NormOverTime,
    "level-strips": LevelStrips,
    "reweighting": Reweighting,
    "tau-accuracy": TauAccuracy,
    "bias-accuracy": BiasAccuracy,
    # ScoreOpt
    "steps-accuracy": StepsAccuracy,
    "objective-weight": ObjectiveWeight,
    "eot-accuracy": EotAccuracy,
    "gradient-agreement": GradientAgreement,
    # RevPure and its successor
    "path-geometry": PathGeometry,
    "purification-strips": PurificationStrips,
    "direction-matrices": DirectionMatrices,
    "direction-spectrum": DirectionSpectrum,
    "length-accuracy": LengthAccuracy,
    "subsequence-accuracy": SubsequenceAccuracy,
    "compression": Compression,
    # ADDT
    "trajectories": Trajectories,
    "knowledge-accuracy": KnowledgeAccuracy,
    "loss-landscape": LossLandscape,
    "eot-direction": EotDirection,
    "semi-loss": SemiLoss,
    "rank-histograms": RankHistograms,
}
OPTIONS = ("config", "rows", "images", "out", "help")
"""What every analysis takes."""
QUIET = 10.0
"""Seconds between lines that say where an analysis is."""


def main(argv: Sequence[str]) -> int:
    """List the analyses, or ask one, write its figure and table, and say where they are."""
    if not argv or argv[0] in ("-h", "--help"):
        for name, asked in ANALYSES.items():
            print(f"{name:20} {_title(asked)}")
        print(
            "\nadpur analyse NAME|PAPER-figureN -c CONFIG; adpur analyse NAME --help: its options"
        )
        return 0
    words, flags = _split(list(argv))
    asked = find(words[0])
    args = _arguments(asked, words)
    if args.rows and any(flag.split("=")[0] == "--only" for flag in flags):
        raise ConfigError("expected --rows or, behind --, --only; they are the same: leave one out")
    rows = [f"--only={args.rows}"] if args.rows else []
    analysis = asked(**{f.name: args[f.name] for f in fields(asked)})  # type: ignore[arg-type]
    try:
        seen = subjects(args.config, [*rows, *flags], args.images, _Teller())
        answer = analysis.ask(seen)
    except KeyboardInterrupt:
        print("adpur: interrupted; nothing of an analysis is kept", file=sys.stderr)
        return 130
    stem = args.out / f"{words[0]}-{Path(args.config).stem}"
    about = {"command": ["adpur", "analyse", *argv], "analysis": repr(analysis)}
    for file in write(answer, stem, about | identity(seen)):
        print(file)
    return 0


def find(name: str) -> type[Analysis]:
    """The analysis of a name or of a paper's figure (`addt-figure6`), or the nearest names."""
    if name in ANALYSES:
        return ANALYSES[name]
    if name.startswith("-"):
        raise ConfigError(f"expected adpur analyse NAME -c CONFIG, got {name} in place of NAME")
    if "." in name:
        return _imported(name)
    drawn = [key for key, asked in ANALYSES.items() if name in figures(_title(asked))]
    if len(drawn) == 1:
        return ANALYSES[drawn[0]]
    if drawn:
        raise ConfigError(f"{name} is drawn in parts: {', '.join(drawn)}")
    known = [*ANALYSES, *(f for asked in ANALYSES.values() for f in figures(_title(asked)))]
    near = difflib.get_close_matches(name, dict.fromkeys(known)) or ["none"]
    raise ConfigError(f"no analysis {name!r}; nearest: {', '.join(near)} (adpur analyse lists)")


def _imported(path: str) -> type[Analysis]:
    """An analysis of one's own, by its import path."""
    module, _, name = path.rpartition(".")
    try:
        found = getattr(import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise ConfigError(f"no analysis {path!r}: {error}") from error
    if not (isinstance(found, type) and issubclass(found, Analysis)):
        raise ConfigError(f"expected a subclass of adpur.papers.analysis.Analysis, got {path}")
    return found


def figures(title: str) -> list[str]:
    """What else an analysis is called: the figures of a paper that its title names.

    >>> figures("ScoreOpt Figs. 2a and 3: accuracy")
    ['scoreopt-figure2a', 'scoreopt-figure2', 'scoreopt-figure3']
    """
    paper, _, drawn = re.split(" and Table|:", title)[0].partition(" Fig")
    found = [(n + part, n) for n, part in re.findall(r"\b(S?\d+)([a-z]?)\b", drawn)]
    return list(dict.fromkeys(f"{paper.lower()}-figure{n}" for both in found for n in both))


class _Teller:
    """A line on standard error now and then: figures are data's, and may be piped."""

    def __init__(self) -> None:
        self.last = time.perf_counter()

    def __call__(self, text: str) -> None:
        if (now := time.perf_counter()) - self.last > QUIET:
            self.last = now
            print(text, file=sys.stderr, flush=True)


def _arguments(asked: type[Analysis], words: Sequence[str]) -> Namespace:
    set_loader("adpur", load_yaml, exceptions=(yaml.YAMLError,))
    parser = ArgumentParser(
        f"adpur analyse {words[0]}", description=_title(asked), exit_on_error=False,
        parser_mode="adpur",
    )  # fmt: skip
    parser.add_argument("-c", "--config", required=True, help="a test config")
    parser.add_argument("--rows", help="rows of the config: a,b (default: all)")
    parser.add_argument("--images", type=int, default=64, help="the first of the config's images")
    parser.add_argument("--out", type=Path, default=Path("runs/analyse"), help="folder to write to")
    parser.add_class_arguments(asked)
    _known(words[1:], [*OPTIONS, *(f.name for f in fields(asked))])  # type: ignore[arg-type]
    try:
        return parser.instantiate_classes(parser.parse_args(list(words[1:])))
    except ArgumentError as error:
        told = explain(error)
        listed = "; write a list, as '[0.1]'" if "expected tuple" in told else ""
        raise ConfigError(told + listed) from None


def _known(words: Sequence[str], options: Sequence[str]) -> None:
    """Refuse an option nobody has in this command's own words."""
    for word in words:
        name = re.split("[=.]", word.removeprefix("--"))[0]
        if word.startswith("--") and name not in options:
            near = difflib.get_close_matches(name, options) or options
            raise ConfigError(f"no option --{name}; nearest: {', '.join(f'--{n}' for n in near)}")


def _split(argv: list[str]) -> tuple[list[str], list[str]]:
    at = argv.index("--") if "--" in argv else len(argv)
    return argv[:at], argv[at + 1 :]


def _title(asked: type[Analysis]) -> str:
    return (asked.__doc__ or "").splitlines()[0]
