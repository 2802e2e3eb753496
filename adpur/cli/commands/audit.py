"""`adpur audit MODULE:CALLABLE`: any classifier of [0, 1] images under the standard protocol."""

import hashlib
import inspect
from argparse import ArgumentParser
from collections.abc import Callable, Sequence
from fractions import Fraction
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

from torch import Tensor, nn

from adpur.cli.beside import beside
from adpur.cli.defaults import default_loggers, quiet
from adpur.errors import ConfigError
from adpur.judging.protocol import DRAWS, IMAGES, NAME, SQUARE
from adpur.lit.data.base import ImageData
from adpur.lit.data.given import Given
from adpur.lit.data.paths import expanded
from adpur.lit.data.sets import Cifar10, Digits
from adpur.lit.run.trainer import Trainer
from adpur.lit.test.evaluation import Evaluation
from adpur.lit.test.figures import Gallery
from adpur.lit.test.protocol import StandardV1
from adpur.lit.test.row import Row, blind_rows
from adpur.models.classifiers import Classifier
from adpur.models.keyed import Seeded
from adpur.models.networks import Networks
from adpur.models.timm_nets import timm_classifier
from adpur.purify.base import Identity
from adpur.report.table import show_run
from adpur.threat.ball import L2, Linf

MOVED = (nn.modules.batchnorm._BatchNorm, nn.modules.dropout._DropoutNd)
"""Layers that training changes."""

SETS: dict[str, Callable[..., ImageData]] = {"digits": Digits, "cifar10": Cifar10}


def main(argv: Sequence[str]) -> int:
    """Attack a classifier, random or not, adpur's or not, and print what can be trusted."""
    args = _parser().parse_args(argv)
    quiet()
    net, data = imported(args.target), images(args.data, args.images)
    if isinstance(net, Classifier) and net.shape != tuple(data.shape):
        raise ConfigError(
            f"{args.target} takes images of {net.shape} (C, H, W), {args.data} has "
            f"{tuple(data.shape)}; bring them to its size"
        )
    name = args.target.replace(":", ".")
    folder = args.run or Path("runs") / f"audit-{name}"
    norm = Linf() if args.norm == "linf" else L2()
    networks, standard = Networks(Seeded(net, data.shape)), StandardV1(radius(args.eps), norm)
    module = Evaluation(
        {"default": networks}, {name: Row(Identity())},
        draws=args.draws, rows=args.rows, trust=args.trust,
    )  # fmt: skip
    trainer = Trainer(
        accelerator=args.device, devices=1, default_root_dir=str(folder),
        logger=default_loggers("test", folder), enable_checkpointing=False,
        callbacks=beside("test", [standard, Gallery()]),
    )  # fmt: skip
    if blind := blind_rows(networks, data, args.rows, trainer.strategy.root_device):
        standard.queries = True
        print(
            f"adpur: no gradient of {args.target} reaches the images: {blind}. Query attacks alone "
            f"({SQUARE}): an upper bound of what the protocol would find, not its number"
        )
    trainer.test(module, data, verbose=False)
    if trainer.interrupted:
        raise KeyboardInterrupt
    show_run(folder)
    return 0


def _parser() -> ArgumentParser:
    parser = ArgumentParser("adpur audit", description=f"{__doc__} ({NAME}, trust report in full)")
    add = parser.add_argument
    add("target", help="module:name of an nn.Module, a factory of one, or f(x); or timm:NAME")
    add("--data", required=True, help=f"a .npz file with x and y, or {', '.join(SETS)}")
    add("--eps", required=True, help="radius in [0, 1] units: 8/255")
    add("--norm", choices=["linf", "l2"], default="linf")
    add("--images", type=int, help=f"how many, a fixed choice (default: {IMAGES}, or all)")
    add("--draws", type=int, default=DRAWS, help="evaluation draws an image")
    add("--rows", type=int, default=64, help="images in every call of the classifier")
    add("--trust", choices=["none", "quick", "full"], default="full")
    add("--device", default="auto", help="Lightning's accelerator: cpu, gpu, auto")
    add("--run", type=expanded, help="run folder (default: runs/audit-NAME)")
    return parser


def imported(target: str) -> nn.Module:
    """The classifier that `module:name` names, looked for in the working folder too.

    `timm:NAME` is one of timm's networks. A module is taken as it is, a callable without required
    arguments is called for one, any other callable is the classifier itself.
    """
    module, _, name = target.partition(":")
    if module == "timm" and name:
        return timm_classifier(name)
    if not name:
        raise ConfigError(f"expected module:name, got {target!r}")
    try:
        held = import_module(module)
    except Exception as error:
        lost = isinstance(error, ModuleNotFoundError) and error.name == module
        told = f"run adpur where {module}.py is" if lost else f"importing {module} failed"
        raise ConfigError(f"{target}: {told} ({type(error).__name__}: {error})") from error
    if not hasattr(held, name):
        raise ConfigError(f"{target}: module {module} has no {name!r}")
    found = getattr(held, name)
    if not callable(found):
        raise ConfigError(f"{target} is {type(found).__name__}, not something to call")
    if not isinstance(found, nn.Module) and not _required(found):
        found = found()
    for name, layers in training(found).items():
        print(
            f"adpur: {target} calls `{name}` in training mode ({layers}): write {name}.eval(), "
            "unless that is the defence"
        )
    return Imported(target, held, found)


def training(found: Any) -> dict[str, str]:
    """The modules that a function calls by name and that act otherwise while they are trained."""
    if isinstance(found, nn.Module) or not inspect.isfunction(inspect.unwrap(found)):
        return {}
    seen = inspect.getclosurevars(inspect.unwrap(found))
    told = {}
    for name, value in {**seen.globals, **seen.nonlocals}.items():
        parts = value.modules() if isinstance(value, nn.Module) else ()
        kinds = {type(part).__name__ for part in parts if part.training and isinstance(part, MOVED)}
        if kinds:
            told[name] = ", ".join(sorted(kinds))
    return told


class Imported(nn.Module):
    """What a user's module holds; its source is part of what it is (`fingerprint`)."""

    def __init__(self, target: str, held: ModuleType, found: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.found = found  # a module, if it is one, is registered
        source = Path(held.__file__).read_bytes() if held.__file__ else b""
        self.told = f"{target}, source {hashlib.sha256(source).hexdigest()}"

    def forward(self, x: Tensor) -> Tensor:
        """Its answer."""
        return self.found(x)

    def extra_repr(self) -> str:
        """Where it is from."""
        return self.told

    def fingerprinted(self) -> dict[str, Any]:
        """See `adpur.models.checkpoints.fingerprint`."""
        return {"found": self.told}


def images(named: str, limit: int | None) -> ImageData:
    """The data of a name or a file, `limit` images of it."""
    kind: Callable[..., ImageData]
    kind = SETS[named] if named in SETS else (lambda **kw: Given(named, **kw))
    available = len(kind().subset)
    return kind(limit=limit if limit is not None else min(IMAGES, available))


def radius(text: str) -> float:
    """8/255 or 0.03.

    >>> radius("1/4")
    0.25
    """
    try:
        return float(Fraction(text))
    except (ValueError, ZeroDivisionError):
        raise ConfigError(f"--eps: expected a number such as 8/255 or 0.5, got {text!r}") from None


def _required(found: Any) -> bool:
    """Whether calling it needs an argument."""
    try:
        parameters = inspect.signature(found).parameters.values()
    except ValueError:  # built-in functions do not say
        return True
    free = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return any(p.default is p.empty and p.kind not in free for p in parameters)
