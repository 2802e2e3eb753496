"""`adpur test`: all of an evaluation, a shard of it, or what it would cost."""

import shlex
from collections.abc import Sequence

from adpur.cli.folder import set_aside
from adpur.cli.parser import CLI
from adpur.errors import ConfigError
from adpur.lit.data.base import ImageData
from adpur.lit.data.share import Shard
from adpur.lit.test.estimate import estimate
from adpur.lit.test.evaluation import Evaluation
from adpur.report.table import show_run


def test(cli: CLI, model: Evaluation, argv: Sequence[str]) -> None:
    """Evaluate all or a shard; print the table, or how far all shards together are."""
    data = cli.datamodule
    if not isinstance(data, ImageData):
        raise ConfigError(f"adpur test needs data: a subclass of ImageData, got {data!r}")
    if cli.config["dry_run"]:
        if cli.trainer.is_global_zero:
            for line in estimate(cli.trainer, model, data, cli.shard.of if cli.shard else 1):
                print(line, flush=True)
        return
    if cli.config["fresh"]:
        set_aside(cli.folder)
    if cli.shard is not None:
        data.shard = cli.shard
        if not data.batches:
            print(f"shard {cli.shard} has nothing to do: there are fewer batches than shards")
            return
    model.mixed = cli.mixed
    cli.trainer.test(model, data, verbose=False)
    if cli.trainer.is_global_zero and not cli.trainer.interrupted:
        if cli.shard is None or model.outcomes:
            show_run(cli.folder)
        else:
            print(unfinished(model, cli.shard, argv))


def unfinished(model: Evaluation, shard: Shard, argv: Sequence[str]) -> str:
    """The one line of a shard that ends before the others."""
    done, size = len(model.records.finished(model.columns)), len(model.data.subset)
    return (
        f"shard {shard} is done, {done} of {size} images are; the table, once all are (or to "
        f"finish them here): {shlex.join(['adpur', 'test', *without_shard(argv)])}"
    )


def without_shard(argv: Sequence[str]) -> list[str]:
    """A command line less its `--shard`."""
    words = iter(argv)
    kept = []
    for word in words:
        if word == "--shard":
            next(words, None)
        elif not word.startswith("--shard="):
            kept.append(word)
    return kept
