"""The test stage: every row clean, and whatever attack blocks the callbacks add."""

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import lightning.pytorch as pl
import torch
from lightning.pytorch.utilities.exceptions import SIGTERMException
from torch import Tensor, nn

from adpur.defense.defense import ROWS, Defense
from adpur.errors import ConfigError
from adpur.judging.chance import at_chance
from adpur.judging.judge import Draws, Verdict, judge
from adpur.judging.records import Records, describe
from adpur.judging.scoreboard import Column, Outcome
from adpur.judging.trial import AttackBlock, Examples, Trial
from adpur.keyed.noise import Noise
from adpur.lit.cores import idle_cores
from adpur.lit.data.base import Batch, ImageData
from adpur.lit.logging.log_results import log_columns, log_rows, start_runs
from adpur.lit.test import identity
from adpur.lit.test.row import Row, check_rows
from adpur.lit.test.trust import TrustReport
from adpur.models.gate import named
from adpur.models.networks import Networks
from adpur.threat.trace import Trace
from adpur.trust.finding import Level


class AttackCallback(pl.Callback, ABC):
    """A callback that attacks every batch, in blocks that an `Evaluation` learns at the start."""

    @abstractmethod
    def blocks(self, rows: Mapping[str, Row], classes: int) -> list[AttackBlock]:
        """Its attack blocks, for a table of these rows and data of so many classes."""


class Evaluation(pl.LightningModule):
    """Accuracy of every row on the same images under the same evaluation keys.

    `Robustness` callbacks bring the attack blocks; the columns they make are this module's. Results
    are records on disk first; what is already there is not computed again.

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
        table: the published table this run repeats; its values stand beside the run's in reports.
            Changes no number.
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
        table: str | None = None,
    ) -> None:
        super().__init__()
        self.workers, self.store, self.table = workers, store, table
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
        self.columns = [Column(name) for name in defenses]
        self.blocks: dict[str, AttackBlock] = {}
        self.outcomes: dict[Column, Outcome] = {}
        self.tell: Callable[[str], None] = lambda text: None
        self.mixed = False
        """Whether to go on where another kind of device, precision or release of torch began."""
        self.meet: Callable[[], None] = lambda: self.trainer.strategy.barrier()
        self.report = TrustReport(self.trust)

    def setup(self, stage: str) -> None:
        """Learn the blocks of the run's callbacks, the same on every process."""
        if stage == "test":
            callbacks: list[pl.Callback] = self.trainer.callbacks  # type: ignore[attr-defined]
            self.read_blocks(callbacks, self.data.classes)

    def read_blocks(self, callbacks: Iterable[pl.Callback], classes: int) -> None:
        """Learn the attack blocks of a run, and with them every column there will be."""
        self.blocks, self.columns = {}, [Column(name) for name in self.rows]
        for callback in callbacks:
            if isinstance(callback, AttackCallback):
                for block in callback.blocks(self.rows, classes):
                    self._admit(block.on(self.rows))

    def _admit(self, block: AttackBlock) -> None:
        """Refuse what would mean nothing or stands for two things, else make its columns."""
        if self.blocks.setdefault(block.name, block).described() != block.described():
            raise ConfigError(f"two Robustness blocks are named {block.name!r}; names must differ")
        for row in block.rows or ():
            block.check(row, self.defenses[block.attacked(row)])
            for column in (block.clean(row), *block.columns(row)):
                if column not in self.columns:
                    self.columns.append(column)

    def on_test_start(self) -> None:
        """Claim the run folder or refuse, then read what is there."""
        if self.trainer.precision != "32-true":
            raise ConfigError(
                f"expected precision 32-true, got {self.trainer.precision}: autocast would reach "
                "the clean column alone"
            )
        told, self.classes = check_rows(self.defenses, self.placed(), self.data, self.device)
        if self.trainer.is_global_zero:
            print("".join(f"{line}\n" for line in told), end="")
        self.records = Records(Path(self.trainer.default_root_dir))
        self._claim()
        if self.data.shard.of == 1 and self.trainer.is_global_zero:
            start_runs(self.trainer.loggers, self.rows, self.records.identity)
        self.records.read()
        for defense in self.defenses.values():
            defense.workers = self.workers or idle_cores(self.trainer)

    def _claim(self) -> None:
        """Claim on the first process, refuse on all: none is left waiting for the others."""
        refusal = ""
        if self.trainer.is_global_zero:
            try:
                shared = self.data.shard.of > 1
                about = {
                    "architectures": identity.architectures(self.defenses),
                    "table": self.table,
                    "labels": dict(self.data.labels),
                }
                self.records.claim(
                    self.identity(), self.columns, about, shared,
                    older=lambda: identity.older_prints(self.defenses),
                )  # fmt: skip
            except ConfigError as error:
                refusal = str(error)
        if refusal := self.trainer.strategy.broadcast(refusal):
            raise ConfigError(refusal)
        # each process for itself: they may be on different machines
        self.records.begin(identity.of_session(self.defenses, self.device), self.mixed)

    @property
    def data(self) -> ImageData:
        """The run's data module."""
        data = self.trainer.datamodule  # type: ignore[attr-defined]
        if not isinstance(data, ImageData):
            raise ConfigError(f"adpur test needs data: a subclass of ImageData, got {data!r}")
        return data

    def identity(self) -> dict[str, Any]:
        """What makes the numbers what they are; not the number of devices, batches or loggers.

        In its `arithmetic` and `versions` sessions may differ, see `adpur.judging.arithmetic`.
        """
        first = next(iter(self.defenses.values()))
        return {
            "defenses": describe(self.rows),
            "networks": self._weights(),
            "attacks": self.described(),
            "data": identity.of_data(self.data),
            "draws": self.draws,
            "select": self.select,
            "rows": first.rows,
            "seed": self.seed,
        } | identity.of_session(self.defenses, self.device)

    def described(self) -> dict[str, Any]:
        """The attack blocks by name, as records hold them."""
        return {name: block.described() for name, block in self.blocks.items()}

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        """Clean accuracy of every row."""
        for name in self.defenses:
            self.judge(Column(name), batch)

    def placed(self) -> list[tuple[AttackBlock, str]]:
        """Every block on each of its rows, in the order of the callbacks."""
        return [(block, row) for block in self.blocks.values() for row in block.rows or ()]

    def trials(self, name: str, x: Tensor) -> Iterator[tuple[Column, Trial]]:
        """Every column of a block, with what makes it; its clean columns first in each row."""
        block = self.blocks[name]
        for row in block.rows or ():
            yield block.clean(row), Trial(self.defenses[row], knowledge=block.knowledge)
            for column in block.columns(row):
                yield column, self.trial(block, row, column.eps, x)

    def trial(self, block: AttackBlock, row: str, eps: float, x: Tensor) -> Trial:
        """A block on a row at a radius; `x` as in `draws_of`."""
        attacked = block.attacked(row)
        return block.trial(self.defenses[attacked], eps, self.draws_of(attacked, x).random)

    def judge(self, column: Column, batch: Batch, trial: Trial | None = None) -> None:
        """Score the images of a batch that the records lack (`adpur.judging.judge.judge`)."""
        with torch.inference_mode(False):
            x, y, index = (part.clone() for part in batch)
            done = self._done(column, index.tolist())
            todo = ~torch.isin(index, torch.tensor(done, dtype=index.dtype, device=index.device))
            if not todo.any():
                return
            self.heed()
            start = time.perf_counter()
            images = Examples(x[todo], y[todo], Noise(index[todo], self.seed))

            def tell(text: str) -> None:
                self.heed()
                self.tell(f"{column}  {text}")

            with named(f"row {column.row!r}"):
                verdict = judge(
                    self.defenses[column.row], images, self.draws_of(column.row, images.x), trial,
                    Trace(len(images.x), tell),
                )  # fmt: skip
            self._keep(column, images, verdict)
            if self.store and not column.clean:  # before the rows, which say that all is done
                self.records.store(column, images.noise.index, verdict.adversarial, images.y)
            self.records.add(column, verdict.scores)
            self.records.time(column, len(images.x), time.perf_counter() - start)

    def draws_of(self, row: str, x: Tensor) -> Draws:
        """The draws of a row's images; whether they differ is measured once, as `x` is shaped."""
        if row not in self._random:
            said = self.rows[row].random
            self._random[row] = said if said is not None else self.defenses[row].random(x)
        return Draws(self.draws, self.select, self._random[row])

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

    def on_test_epoch_start(self) -> None:
        """Probe every block; whatever fails here stops the run before its hours are spent."""
        self.report.probe(self)

    def on_test_end(self) -> None:
        """Ask the rest of the trust report, of the records."""
        self.report.review(self)

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
            for row, classes in self.classes.items():
                if line := at_chance(row, self.outcomes[Column(row)], classes):
                    print(f"\n{line}")
            self._log()

    def _log(self) -> None:
        """Tell the loggers; of several shards, only the one that sees all complete has W&B runs."""
        if self.data.shard.of > 1:
            start_runs(self.trainer.loggers, self.rows, self.records.identity)
        log_columns(self.trainer.loggers, self.outcomes)
        log_rows(
            self.trainer.loggers, self.outcomes, self.described(), self.records, self._weights(),
            older=lambda: identity.older_prints(self.defenses),
        )  # fmt: skip

    def _keep(self, column: Column, images: Examples, verdict: Verdict) -> None:
        index = images.noise.index
        chosen = torch.isin(index.cpu(), self.data.first(self.gallery))
        x_adv, purified = verdict.adversarial, verdict.purified
        kept = {"index": index, "clean": images.x, "adversarial": x_adv, "purified": purified}
        self.records.keep(column, {k: v.cpu()[chosen] for k, v in kept.items()})

    def _weights(self) -> dict[str, dict[str, str]]:
        return {row: identity.of_networks(d.networks) for row, d in self.defenses.items()}
