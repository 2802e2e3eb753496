"""Deterministic threads and paths for every test."""

import logging
import os
from pathlib import Path

import pytest
import torch

torch.set_num_threads(1)
logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)


@pytest.fixture
def away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working folder, and no variable that names data or weights."""
    monkeypatch.chdir(tmp_path)
    for variable in [name for name in os.environ if name.startswith("ADPUR_")]:
        monkeypatch.delenv(variable)
    return tmp_path
