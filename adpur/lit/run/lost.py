"""A process that is lost ends the others, in one line; the same command then finishes."""

import os
import secrets
import socket
import sys
import time
from collections.abc import Callable

import lightning.pytorch as pl
from lightning.pytorch.strategies import ParallelStrategy
from lightning.pytorch.utilities.exceptions import SIGTERMException

from adpur.lit.run.watch import LOST, Company, Word, host, join
from adpur.lit.test.evaluation import Evaluation

GRACE = {130: 20.0, 143: 20.0}
"""Seconds a process may take to follow another's signal by itself; else `BRIEFLY`."""
BRIEFLY = 2.0


class Watch(pl.Callback):
    """Ends this process when another of the run has died, been killed or stopped on an error.

    Part of every run (`adpur.cli.beside`); does nothing for a single process.
    """

    def __init__(self) -> None:
        self._company: Company | None = None

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Connect the processes, over the launcher's own rendezvous."""
        strategy, rank, world = trainer.strategy, trainer.global_rank, trainer.world_size
        if world == 1 or not isinstance(strategy, ParallelStrategy):
            return
        server = socket.create_server(("", 0), backlog=world) if rank == 0 else None
        mine = (secrets.token_bytes(16), server.getsockname()[1]) if server else None
        token, port = strategy.broadcast(mine)  # type: ignore[misc]
        if server is not None:
            links = host(world, token, server)
        else:
            assert strategy.cluster_environment is not None
            links = join(rank, token, (strategy.cluster_environment.main_address, port))
        self._company = company = Company(rank, links, lambda word: _follow(word, rank, world))
        if isinstance(pl_module, Evaluation):
            pl_module.meet = lambda: _meet(company, pl_module.heed)

    def on_exception(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException
    ) -> None:
        """Let the others know, and with which exit code to end."""
        if self._company is not None:
            signals = {KeyboardInterrupt: 130, SIGTERMException: 143}
            self._company.leave(signals.get(type(exception), 2))

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """The stage is over; wait for those who have more to do, so that none is missed."""
        if self._company is not None:
            _meet(self._company, lambda: None)
            self._company.close()
            self._company = None


def _meet(company: Company, heed: Callable[[], None]) -> None:
    company.finish()
    while not company.together(0.2):
        heed()


def _follow(word: Word, rank: int, world: int) -> None:
    """End this process, from the thread that heard; the main one may be waiting for the lost."""
    if word.code == LOST:
        if rank == (0 if word.rank else 1):
            told = f"process {word.rank} of {world} was lost"
            print(f"adpur: error: {told}; the same command continues", file=sys.stderr, flush=True)
        os._exit(1)
    time.sleep(GRACE.get(word.code, BRIEFLY))
    os._exit(word.code)
