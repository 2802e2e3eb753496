"""The test stage: every row clean, and whatever attack blocks the callbacks add."""

import math
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import lightning.pytorch as pl
import numpy as np
import torch
from lightning.pytorch.utilities.exceptions import SIGTERMException
from torch import Tensor, nn

import adpur
from adpur.defense import ROWS, Defense, Prediction
from adpur.ensemble import Ensemble, Single
from adpur.errors import ConfigError
from adpur.lit.data.base import Batch, ImageData
from adpur.lit.loggers import RowRuns
from adpur.metrics.scoreboard import Column, Outcome, Score
from adpur.models.fingerprint import fingerprint
from adpur.models.networks import Networks
from adpur.noise import Noise
from adpur.purify.base import Purifier
from adpur.records import Records, describe, digest
from adpur.threat.ball import Linf, Norm
from adpur.threat.knowledge import Knowledge
from adpur.threat.oracle import Margin


@dataclass(frozen=True)
class Row:
    """One defence of the table: a purifier, the name of the networks it borrows, and how many of
    its purifications make one prediction.
    """

    purifier: Purifier
    network: str = "default"
    ensemble: Ensemble = Single()


class Found(NamedTuple):
    """What an attack returns: images, and the cosine `(B,)` of its gradient to the exact one."""

    image: Tensor
    cosine: Tensor | None = None


def unattacked(x: Tensor, y: Tensor, noise: Noise) -> Found:
    """The clean images."""
    return Found(x)


class Evaluation(pl.LightningModule):
    """Accuracy of every row on the same images under the same evaluation keys.

    `Robustness` callbacks add attack columns. Results are records on disk first; what is already
    there is not computed again.

    Args:
        networks: named networks.
        defenses: named rows.
        draws: N, fresh evaluation draws per image and column.
        rows: R, rows of every network call; part of the run's identity.
        seed: of every key.
        gallery: images of each column to keep, clean, adversarial and purified.
        workers: chunks run at a time on a CPU; by default, the cores that are left idle by
            torch's own threads. Changes no bit.
        store: keep every attacked image (`Records.adversarial` reads them back), not examples only.
    """

    def __init__(
        self,
        networks: dict[str, Networks],
        defenses: dict[str, Row],
        draws: int = 10,
        rows: int = ROWS,
        seed: int = 0,
        gallery: int = 10,
        workers: int | None = None,
        store: bool = False,
    ) -> None:
        super().__init__()
        self.workers, self.store = workers, store
        self.gallery = gallery
        if draws < 1:
            raise ConfigError(f"draws must be a positive integer, got {draws}")
        if gallery < 0 or (workers is not None and workers < 1):
            raise ConfigError(f"gallery must be >= 0 and workers >= 1, got {gallery}, {workers}")
        Noise(torch.zeros(1, dtype=torch.int64), seed)  # refuse a seed before any folder is claimed
        self.rows, self.draws, self.seed = defenses, draws, seed
        self.defenses: dict[str, Defense] = {}
        for name, row in defenses.items():
            if row.network not in networks:
                raise ConfigError(
                    f"row {name!r} wants network {row.network!r}; there is: {', '.join(networks)}"
                )
            self.defenses[name] = Defense(
                row.purifier, networks[row.network], rows, ensemble=row.ensemble
            )
        self.networks = nn.ModuleDict(networks)
        self.columns: list[Column] = []
        self.blocks: dict[str, Any] = {}
        self.outcomes: dict[Column, Outcome] = {}
        self.tell: Callable[[str], None] = lambda text: None
        self.meet: Callable[[], None] = lambda: self.trainer.strategy.barrier()
        for name in defenses:
            self.declare(Column(name))

    def declare(self, column: Column) -> None:
        """Announce a column, the same on every process, before the first batch."""
        if column not in self.columns:
            self.columns.append(column)

    def on_test_start(self) -> None:
        """Claim the run folder or refuse, then read what is there."""
        if self.trainer.precision != "32-true":
            raise ConfigError(
                f"expected precision 32-true, got {self.trainer.precision}: autocast would reach "
                "the clean column alone"
            )
        self.records = Records(Path(self.trainer.default_root_dir))
        identity = self.identity()
        self._claim(identity)
        if self.data.shard.of == 1:
            self._start_runs(identity)
        self.records.read()
        for defense in self.defenses.values():
            defense.workers = self.workers or idle_cores(self.trainer)

    def _claim(self, identity: dict[str, Any]) -> None:
        """Claim on the first process, refuse on all: none is left waiting for the others."""
        refusal = ""
        if self.trainer.is_global_zero:
            try:
                self.records.claim(identity, self.columns, shared=self.data.shard.of > 1)
            except ConfigError as error:
                refusal = str(error)
        if refusal := self.trainer.strategy.broadcast(refusal):
            raise ConfigError(refusal)

    @property
    def data(self) -> ImageData:
        """The run's data module."""
        data = self.trainer.datamodule  # type: ignore[attr-defined]
        if not isinstance(data, ImageData):
            raise ConfigError(f"adpur test needs data: a subclass of ImageData, got {data!r}")
        return data

    def identity(self) -> dict[str, Any]:
        """What makes the numbers what they are; not devices, loader batches or loggers."""
        first = next(iter(self.defenses.values()))
        return {
            "defenses": describe(self.rows),
            "networks": {name: _parts(d.networks) for name, d in self.defenses.items()},
            "attacks": self.blocks,
            "data": {
                "class": type(self.data).__name__,
                "split": self.data.evaluate,
                "images": len(self.data.subset),
                "sha256": self.data.digest(),
            },
            "draws": self.draws,
            "rows": first.rows,
            "seed": self.seed,
            "arithmetic": {
                "dtype": "float32",
                "matmul": torch.get_float32_matmul_precision(),
                "cudnn_tf32": torch.backends.cudnn.allow_tf32,
            },
            "versions": {"adpur": adpur.__version__, "torch": torch.__version__},
        }

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        """Clean accuracy of every row."""
        for name in self.defenses:
            self.judge(Column(name), batch, unattacked)

    def judge(
        self,
        column: Column,
        batch: Batch,
        attack: Callable[[Tensor, Tensor, Noise], Found],
        knowledge: Knowledge | None = None,
        norm: Norm | None = None,
    ) -> None:
        """Score the images of a batch that the records lack.

        Whatever image `attack(x, y, noise)` returns is projected and predicted again under N fresh
        evaluation keys: an attack's own claim of success counts for nothing.
        """
        with torch.inference_mode(False):
            x, y, index = (part.clone() for part in batch)
            done = self._done(column, index.tolist())
            todo = ~torch.isin(index, torch.tensor(done, dtype=index.dtype, device=index.device))
            if not todo.any():
                return
            self.heed()
            start = time.perf_counter()
            x, y, noise = x[todo], y[todo], Noise(index[todo], self.seed)
            image, cosine = attack(x, y, noise)
            norm = norm or Linf()
            found = norm.project(image.detach(), x, column.eps) if not column.clean else x
            keys = (knowledge or Knowledge()).evaluate(noise, self.draws)
            draws = len(keys.index) // len(x)
            with torch.no_grad():
                out = self.defenses[column.row](found.repeat(draws, 1, 1, 1), keys)
            scores = _scores(out, noise.index, y, norm.size(found - x), cosine, draws)
            self._keep(column, noise.index, x, found, out.image[: len(x)])
            if self.store and not column.clean:  # before the rows, which say that all is done
                self.records.store(column, noise.index, found, y)
            self.records.add(column, scores)
            self.records.time(column, len(x), time.perf_counter() - start)

    def _done(self, column: Column, index: list[int]) -> list[int]:
        """Images that need no work: recorded and, where that is asked for, stored."""
        known = [score.index for score in self.records.known(column, index)]
        if not self.store or column.clean or not known:
            return known
        stored = self.records.stored(column)
        return [i for i in known if i in stored]

    def heed(self) -> None:
        """Stop for SIGTERM now: Lightning looks between batches only, and never after the last."""
        if self.trainer.received_sigterm:
            raise SIGTERMException

    def on_test_epoch_end(self) -> None:
        """Read what every process recorded: no collective, so no backend, can lose a row.

        A shard that others have yet to complete leaves no outcomes.
        """
        self.meet()
        self.records.read()
        done, wanted = len(self.records.finished(self.columns)), len(self.data.subset)
        if self.data.shard.of > 1 and done < wanted:
            return
        self.outcomes = {c: Outcome.of(self.records.scores[c].values()) for c in self.columns}
        if self.trainer.is_global_zero:
            self._log()

    def _log(self) -> None:
        """Every column to every logger, every row to its own W&B run."""
        if self.data.shard.of > 1:
            self._start_runs(self.identity())
        named = {
            f"{column}/{key}": value
            for column, outcome in self.outcomes.items()
            for key, value in outcome.summary().items()
        }
        for logger in self.loggers:
            logger.log_metrics(named, step=0)
        seconds = self.records.seconds()
        for row_runs in self._row_runs():
            for row in self.rows:
                row_runs.log_row(row, row_summary(row, self.outcomes, seconds))

    def _start_runs(self, identity: dict[str, Any]) -> None:
        """A W&B run for each row; of several shards, only in the one that sees all complete."""
        if self.trainer.is_global_zero:
            for row_runs in self._row_runs():
                for name, row in self.rows.items():
                    row_runs.start(name, describe(row), digest([identity, name]))

    def _keep(self, column: Column, index: Tensor, x: Tensor, found: Tensor, image: Tensor) -> None:
        chosen = torch.isin(index.cpu(), self.data.first(self.gallery))
        kept = {"index": index, "clean": x, "adversarial": found, "purified": image}
        self.records.keep(column, {k: v.cpu()[chosen] for k, v in kept.items()})

    def _row_runs(self) -> list[RowRuns]:
        return [logger for logger in self.loggers if isinstance(logger, RowRuns)]


def idle_cores(trainer: pl.Trainer) -> int:
    """Chunks worth running at a time: one on an accelerator."""
    if trainer.strategy.root_device.type != "cpu":
        return 1
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return max(1, (cores or 1) // (torch.get_num_threads() * trainer.world_size))


def row_summary(
    row: str, outcomes: dict[Column, Outcome], seconds: dict[Column, float]
) -> dict[str, float]:
    """The fixed keys of a row: clean, and robust under the column that leaves it lowest."""
    mine = {c: o.summary() for c, o in outcomes.items() if c.row == row}
    flat = {f"{c.attack}/{c.eps:g}/acc": s["acc"] for c, s in mine.items() if not c.clean}
    attacked = [s for c, s in mine.items() if not c.clean]
    named = {"clean": mine[Column(row)]}
    if attacked:
        named["robust"] = min(attacked, key=lambda s: s["acc"])
    for name, s in named.items():
        flat |= {
            f"{name}/acc": s["acc"],
            f"{name}/ci_lo": s["acc_lo"],
            f"{name}/ci_hi": s["acc_hi"],
        }
    spent = sum(v for c, v in seconds.items() if c.row == row)
    return flat | {"nfe": mine[Column(row)]["nfe"], "seconds": spent}


def _scores(
    out: Prediction, index: Tensor, y: Tensor, size: Tensor, cosine: Tensor | None, draws: int
) -> list[Score]:
    margin = Margin().loss(out.logits, y.repeat(draws))

    def per_image(v: Tensor) -> list[Any]:
        listed: list[Any] = v.view(draws, len(index), *v.shape[1:]).transpose(0, 1).tolist()
        return listed

    columns = zip(
        index.tolist(),
        y.tolist(),
        per_image(out.logits.argmax(1)),
        per_image(margin),
        per_image(out.levels),
        per_image(out.snapped),
        [[None if math.isnan(n) else n for n in norms] for norms in per_image(out.score_norm)],
        np.mean(per_image(out.nfe), axis=1).tolist(),
        size.tolist(),
        [None] * len(index) if cosine is None else cosine.tolist(),
        strict=True,
    )
    return [Score(*column) for column in columns]


def _parts(networks: Networks) -> dict[str, str]:
    return {name: fingerprint(part) for name, part in networks.named_children()}
