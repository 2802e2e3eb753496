"""The signals that end a fit early, heeded between two steps by all of its processes at once."""

import os
import signal
import subprocess
import sys
import threading
from types import FrameType

import lightning.pytorch as pl
from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from lightning.pytorch.strategies.launchers import _SubprocessScriptLauncher


class Signals:
    """SIGTERM, and SLURM's warning that a job's time is nearly up.

    Lightning acts on them inside the handler: it saves or talks to the other processes in the
    middle of whatever was going on, an optimizer step or an all-reduce. Here they are noted.
    """

    def __init__(self) -> None:
        self.heard: int | None = None
        self.warning: int | None = None

    def listen(self, trainer: pl.Trainer) -> None:
        """From now on, until Lightning's connector puts back what it found."""
        environment = trainer._accelerator_connector.cluster_environment
        if isinstance(environment, SLURMEnvironment) and environment.auto_requeue:
            self.warning = environment.requeue_signal
        if threading.current_thread() is not threading.main_thread():
            return  # Python allows handlers there only
        for number in filter(None, (signal.SIGTERM, self.warning)):
            signal.signal(number, lambda n, frame: self._hear(trainer, n, frame))

    def stop(self, trainer: pl.Trainer) -> bool:
        """Whether any process has heard one; then the fit must end. A collective call.

        A job that SLURM warned is queued again first; where SLURM refuses, it trains on.
        """
        agreed = trainer.strategy.reduce_boolean_decision
        if not agreed(self.heard is not None, all=False):
            return False
        warned, self.heard = self.heard is not None and self.heard == self.warning, None
        if not agreed(warned, all=False):
            return True
        return agreed(trainer.is_global_zero and _queued_again(), all=False)

    def _hear(self, trainer: pl.Trainer, number: int, frame: FrameType | None) -> None:
        self.heard = number
        if isinstance(trainer.strategy.launcher, _SubprocessScriptLauncher):
            trainer.strategy.launcher.kill(number)


def requeued() -> bool:
    """Whether this process belongs to a job that SLURM runs again."""
    return int(os.environ.get("SLURM_RESTART_COUNT", 0)) > 0


def _queued_again() -> bool:
    """Have SLURM run this job again."""
    array = os.environ.get("SLURM_ARRAY_JOB_ID")
    job = f"{array}_{os.environ['SLURM_ARRAY_TASK_ID']}" if array else os.environ["SLURM_JOB_ID"]
    try:
        subprocess.run(["scontrol", "requeue", job], check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        print(f"adpur: job {job} is not queued again: {error}", file=sys.stderr)
        return False
    return True
