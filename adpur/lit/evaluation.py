"""The test stage: every row clean, and whatever attack blocks the callbacks add."""

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import lightning.pytorch as pl
import torch
from lightning.pytorch.utilities.exceptions import SIGTERMException
from torch import Tensor, nn

import adpur
from adpur.defense import ROWS, Defense
from adpur.ensemble import Ensemble, Single
from adpur.errors import ConfigError
from adpur.judge import Bench, Search, Verdict, judge, unattacked
from adpur.lit.callbacks.trust import TrustReport
from adpur.lit.data.base import Batch, ImageData
from adpur.lit.loggers import RowRuns
from adpur.metrics.scoreboard import Column, Outcome
from adpur.models.fingerprint import fingerprint
from adpur.models.networks import Networks
from adpur.noise import Noise
from adpur.purify.base import Purifier
from adpur.records import Records, describe, digest
from adpur.threat.ball import Linf, Norm
from adpur.threat.knowledge import Knowledge
from adpur.threat.trace import Trace
from adpur.trial import Block
from adpur.trust.finding import Level


@dataclass(frozen=True)
class Row:
    """One defence of the table.

    Args:
        purifier: of [0, 1] images.
        network: the name of the networks it borrows.
        ensemble: how many of its purifications make one prediction, and how.
        random: whether two draws of an image can differ; measured by default. What is not random
            is attacked without EOT and evaluated on two draws, which must agree.
    """

    purifier: Purifier
    network: str = "default"
    ensemble: Ensemble = Single()
    random: bool | None = None


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
        select: selection draws, apart from the N, that choose between the attacks of a union.
        gallery: images of each column to keep, clean, adversarial and purified.
        trust: how much of the trust report: `quick`, `full` or `none`; changes no number.
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
        select: int = 10,
        gallery: int = 10,
        trust: Literal["none", "quick", "full"] = "quick",
        workers: int | None = None,
        store: bool = False,
    ) -> None:
        super().__init__()
        self.workers, self.store = workers, store
        self.gallery = gallery
        self.trust = Level(trust)
        if draws < 1 or select < 1:
            raise ConfigError(f"draws and select must be positive, got {draws} and {select}")
        if gallery < 0 or (workers is not None and workers < 1):
            raise ConfigError(f"gallery must be >= 0 and workers >= 1, got {gallery}, {workers}")
        Noise(torch.zeros(1, dtype=torch.int64), seed)  # refuse a seed before any folder is claimed
        self.rows, self.draws, self.select, self.seed = defenses, draws, select, seed
        self._random: dict[str, bool] = {}
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
        self.attacks: dict[tuple[str, str], Block] = {}
        self.outcomes: dict[Column, Outcome] = {}
        self.tell: Callable[[str], None] = lambda text: None
        self.meet: Callable[[], None] = lambda: self.trainer.strategy.barrier()
        for name in defenses:
            self.declare(Column(name))

    def configure_callbacks(self) -> list[pl.Callback]:
        """The trust report comes by itself."""
        return [] if self.trust is Level.NONE else [TrustReport(self.trust)]

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
            "select": self.select,
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
            self.judge(Column(name), batch)

    def judge(
        self,
        column: Column,
        batch: Batch,
        search: Search = unattacked,
        knowledge: Knowledge = Knowledge(),
        norm: Norm = Linf(),
    ) -> None:
        """Score the images of a batch that the records lack (`adpur.judge.judge`)."""
        with torch.inference_mode(False):
            x, y, index = (part.clone() for part in batch)
            done = self._done(column, index.tolist())
            todo = ~torch.isin(index, torch.tensor(done, dtype=index.dtype, device=index.device))
            if not todo.any():
                return
            self.heed()
            start = time.perf_counter()
            x, y, noise = x[todo], y[todo], Noise(index[todo], self.seed)

            def tell(text: str) -> None:
                self.heed()
                self.tell(f"{column}  {text}")

            verdict = judge(
                self.defenses[column.row], x, y, noise, self.bench(column.row, x), search,
                knowledge, norm, column.eps, Trace(len(x), tell),
            )  # fmt: skip
            self._keep(column, noise.index, x, verdict)
            if self.store and not column.clean:  # before the rows, which say that all is done
                self.records.store(column, noise.index, verdict.adversarial, y)
            self.records.add(column, verdict.scores)
            self.records.time(column, len(x), time.perf_counter() - start)

    def bench(self, row: str, like: Tensor) -> Bench:
        """How a row's images are judged; whether it is random is measured once."""
        if row not in self._random:
            said = self.rows[row].random
            self._random[row] = said if said is not None else self.defenses[row].random(like)
        return Bench(self.draws, self.select, self._random[row])

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

    def _keep(self, column: Column, index: Tensor, x: Tensor, verdict: Verdict) -> None:
        chosen = torch.isin(index.cpu(), self.data.first(self.gallery))
        found, image = verdict.adversarial, verdict.purified
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


def _parts(networks: Networks) -> dict[str, str]:
    return {name: fingerprint(part) for name, part in networks.named_children()}
