"""`adpur analyse NAME -c CONFIG`: a figure of the papers, drawn for the rows of a test config.

Options after ` -- ` are those of `adpur test`: `... -- --data.limit=8 --vary '{...}'`.
"""

import difflib
import re
import sys
import time
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path

import yaml
from jsonargparse import ArgumentError, ArgumentParser, Namespace, set_loader

from adpur.analyse.agreement import GradientAgreement
from adpur.analyse.analysis import Analysis, write
from adpur.analyse.compression import Compression
from adpur.analyse.copies import EotDirection
from adpur.analyse.curves import Reweighting
from adpur.analyse.geometry import PathGeometry
from adpur.analyse.known import KnowledgeAccuracy
from adpur.analyse.landscape import LossLandscape
from adpur.analyse.lengths import LengthAccuracy, SubsequenceAccuracy
from adpur.analyse.matrices import DirectionMatrices
from adpur.analyse.norms import NormOverEps, NormOverTime
from adpur.analyse.optimising import EotAccuracy, ObjectiveWeight, StepsAccuracy
from adpur.analyse.pictures import PurificationStrips
from adpur.analyse.ranks import RankHistograms
from adpur.analyse.reweighting import BiasAccuracy, TauAccuracy
from adpur.analyse.semi import SemiLoss
from adpur.analyse.spectrum import DirectionSpectrum
from adpur.analyse.strips import LevelStrips
from adpur.analyse.subject import subjects
from adpur.analyse.trajectories import Trajectories
from adpur.errors import ConfigError
from adpur.explain import explain
from adpur.stages.values import load_yaml

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
    if not argv:
        for name, asked in ANALYSES.items():
            print(f"{name:20} {_title(asked)}")
        print(
            "\nadpur analyse NAME|PAPER-figureN -c CONFIG; adpur analyse NAME --help: its options"
        )
        return 0
    words, flags = _split(list(argv))
    asked = find(words[0])
    args = _arguments(asked, words)
    rows = [f"--only={args.rows}"] if args.rows else []
    analysis = asked(**{f.name: args[f.name] for f in fields(asked)})  # type: ignore[arg-type]
    try:
        answer = analysis.ask(subjects(args.config, [*rows, *flags], args.images, _Teller()))
    except KeyboardInterrupt:
        print("adpur: interrupted; nothing of an analysis is kept", file=sys.stderr)
        return 130
    stem = args.out / f"{words[0]}-{Path(args.config).stem}"
    for file in write(answer, stem):
        print(file)
    return 0


def find(name: str) -> type[Analysis]:
    """The analysis of a name or of a paper's figure (`addt-figure6`), or the nearest names."""
    if name in ANALYSES:
        return ANALYSES[name]
    drawn = [key for key, asked in ANALYSES.items() if name in figures(_title(asked))]
    if len(drawn) == 1:
        return ANALYSES[drawn[0]]
    if drawn:
        raise ConfigError(f"{name} is drawn in parts: {', '.join(drawn)}")
    known = [*ANALYSES, *(f for asked in ANALYSES.values() for f in figures(_title(asked)))]
    near = difflib.get_close_matches(name, known) or ANALYSES
    raise ConfigError(f"no analysis {name!r}; nearest: {', '.join(near)} (adpur analyse lists)")


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
        raise ConfigError(explain(error)) from None


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
