"""The shipped batch script of a fit, run as SLURM runs it: warned, queued again, finished."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from slurm import SLURM

from adpur.shipped import shipped_configs

SCRIPT = shipped_configs() / "slurm" / "fit.sbatch"
WORDS = [
    "-c", "addt_digits", "--model.export=weights", "--trainer.max_epochs=3", "--data.batch_size=64",
    "--model.score_norms=[]", "--trainer.callbacks=[]", "--trainer.enable_progress_bar=false",
    "--trainer.logger=false", "--trainer.log_every_n_steps=1",
]  # fmt: skip


def job(folder: Path, *words: str, **more: str) -> subprocess.Popen[bytes]:
    """The script with SLURM's variables; `scontrol` and a launcher that runs its words."""
    tools = {"scontrol": 'echo "$@" >> asked', "launch": f'exec {sys.executable} -m "$@"'}
    for name, text in tools.items():
        (folder / name).write_text(f"#!/bin/bash\n{text}\n")
        (folder / name).chmod(0o755)
    env = os.environ | SLURM | more | {
        "ADPUR_LAUNCH": str(folder / "launch"), "PATH": f"{folder}:{os.environ['PATH']}",
        "SLURM_JOB_NUM_NODES": "1", "SLURM_NTASKS_PER_NODE": "1", "SLURM_NNODES": "1",
    }  # fmt: skip
    with (folder / "stderr").open("w") as said:
        command = ["bash", str(SCRIPT), *WORDS, *words]
        return subprocess.Popen(command, cwd=folder, env=env, stderr=said)


def test_the_script_is_a_script() -> None:
    subprocess.run(["bash", "-n", str(SCRIPT)], check=True)


@pytest.mark.slow
def test_a_job_that_is_warned_goes_on_to_the_same_bits(tmp_path: Path) -> None:
    (tmp_path / "straight").mkdir()
    assert job(tmp_path / "straight").wait(300) == 0
    warned = job(tmp_path, "--run", "fit", "--fresh")
    while not (tmp_path / "fit/checkpoints/last.ckpt").exists():  # the first epoch is over
        assert warned.poll() is None
        time.sleep(0.01)
    warned.send_signal(signal.SIGUSR1)
    assert warned.wait(60) == 143
    assert "terminated; the same command continues" in (tmp_path / "stderr").read_text()
    assert (tmp_path / "asked").read_text() == "requeue 7\n"
    state = torch.load(tmp_path / "fit/checkpoints/last.ckpt", weights_only=True)
    assert 17 <= state["global_step"] < 51 and not (tmp_path / "weights").exists()
    assert job(tmp_path, "--run", "fit", "--fresh", SLURM_RESTART_COUNT="1").wait(300) == 0
    files = [
        f / "weights/unet/diffusion_pytorch_model.safetensors"
        for f in (tmp_path / "straight", tmp_path)
    ]
    assert files[0].read_bytes() == files[1].read_bytes()
