"""The command line: `adpur COMMAND`, listed in USAGE.

Only the commands that compute import torch; `adpur --help` answers at once.
"""

import errno
import os
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from adpur.errors import AttackError, ConfigError
from adpur.shipped import shipped_configs

USAGE = """adpur: train and evaluate diffusion-based adversarial purification

usage: adpur COMMAND [-c NAME|FILE ...] [--key=value ...]

  fit        train a network and export its weights      adpur fit -c diffusion_digits
  validate   validation metrics of a network             adpur validate -c classifier_digits
  test       standard and robust accuracy of defences    adpur test -c ssni_digits
  audit      any classifier, standard protocol           adpur audit FILE:NET --data digits --eps .1
  predict    purify a folder of images into another      adpur predict -c ssni_digits IN OUT
  calibrate  measure SSNI's score norms of weights       adpur calibrate digits/diffusion
  fetch      a published checkpoint, when asked for      adpur fetch ddpm-cifar10
  convert    others' checkpoints into weights folders    adpur convert FILE.pkl OUT
  weights    known checkpoints, or what a folder holds   adpur weights digits/diffusion
  report     tables, curves and a page of finished runs  adpur report runs/ssni_digits
  dashboard  a W&B view that compares evaluations        adpur dashboard ssni_digits
  analyse    a figure of a paper, or a list of all       adpur analyse norm-eps -c ssni_digits
  reproduce  a table of a paper, or a list of all        adpur reproduce ssni-table4
  configs    list the shipped configs

Results go to runs/<config name>; the same command continues an unfinished run.
  --run DIR   another folder      --fresh   start anew, keeping the old folder beside
  --only ROW,ROW                  run these rows of a test config
  --vary '{ROW: {t: [50, 100]}}'  a row for each value of a purifier's setting
  --shard K/N  every N-th batch, beside the other shards       --dry-run  what it would cost
`adpur test --help` lists every key, `adpur test -c NAME --print_config` shows one in full.
"""


MODULES = (
    "audit", "predict", "calibrate", "fetch", "convert", "weights", "report", "dashboard",
    "reproduce", "analyse",
)  # fmt: skip
"""Commands with a module of their own in `adpur.cli.commands`, or in `adpur.papers`."""
PAPERS = ("reproduce", "analyse")
"""Those of `adpur.papers`."""
DISK = {errno.ENOSPC, errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOTDIR, errno.EDQUOT}
"""What a full, read-only or misnamed place answers: the user's to mend, not a traceback's."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code: 0, 2 for a mistake, 130 or 143 for a signal."""
    args = list(sys.argv[1:] if argv is None else argv)
    if not args or args[0] in ("-h", "--help"):
        print(USAGE, end="")
        return 0 if args else 2
    quiet_threads()
    own_modules()
    try:
        return _command(args[0])(args[1:])
    except (ConfigError, AttackError) as error:
        print(f"adpur: error: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        if error.filename is None or error.errno not in DISK:
            raise
        print(f"adpur: error: {error.filename}: {error.strerror}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("adpur: interrupted; the same command continues", file=sys.stderr)
        return 130


def own_modules() -> None:
    """Let YAML and `audit` name modules of the working folder, as `python -m adpur` does."""
    if (here := str(Path.cwd())) not in sys.path:
        sys.path.insert(0, here)


def quiet_threads() -> None:
    """Let waiting OpenMP threads give up their core soon; must run before torch is imported.

    Beside one busy process a U-Net on two threads took 847 ms with libgomp's own spinning and 604
    with this; on an idle machine this cost 275 against 251 ms (docs/speed.md).
    """
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")


def configs(argv: Sequence[str]) -> int:
    """Print each shipped config with its first line; the papers' tables are `reproduce`'s."""
    for file in sorted(shipped_configs().glob("*.yaml")):
        head = file.read_text().splitlines()[0]
        print(f"{file.stem:24} {head.removeprefix('#').strip()}")
    return 0


def _command(name: str) -> Callable[[Sequence[str]], int]:
    if name == "configs":
        return configs
    if name in ("fit", "validate", "test"):
        from adpur.cli.run import run

        return partial(run, name)
    if name in MODULES:
        from importlib import import_module

        home = "adpur.papers" if name in PAPERS else "adpur.cli.commands"
        command: Callable[[Sequence[str]], int] = import_module(f"{home}.{name}").main
        return command
    import difflib

    known = ["fit", "validate", "test", *MODULES, "configs"]
    near = difflib.get_close_matches(name, known) or known
    raise ConfigError(f"no command {name!r}; nearest: {', '.join(near)} (adpur --help)")
