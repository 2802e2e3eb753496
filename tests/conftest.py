"""Deterministic threads and paths for every test."""

import logging
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

# Two threads beside a busy process spin for each other: one, unless OMP_NUM_THREADS asks for more.
# It is set too: processes of the tests read it, and where it is not Lightning's launcher of two
# processes gives the calling one half of the machine's cores from then on.
torch.set_num_threads(int(os.environ.setdefault("OMP_NUM_THREADS", "1")))
logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)


@pytest.fixture(autouse=True)
def threads() -> Iterator[None]:
    """As many in every test, whatever `--threads` the one before it gave."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def forks() -> Iterator[None]:
    """One thread, for a file that forks: GNU OpenMP's threads do not live on in a forked process.

    A child that asks for two waits for ever; one that takes one computes other last bits than a
    parent of two.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working folder, and no variable that names data or weights."""
    monkeypatch.chdir(tmp_path)
    for variable in [name for name in os.environ if name.startswith("ADPUR_")]:
        monkeypatch.delenv(variable)
    return tmp_path
