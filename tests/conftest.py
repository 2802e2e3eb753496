"""Deterministic threads and paths for every test."""

import logging
import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parent))
torch.set_num_threads(1)
logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
