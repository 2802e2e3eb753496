"""The laws are asked of the machine that was named: its instruction set, its threads."""

import os

import torch


def test_the_instruction_set_and_the_threads_are_those_asked_for() -> None:
    """`make test-isa` would else repeat what `make test` has shown."""
    asked = os.environ.get("ATEN_CPU_CAPABILITY")
    assert asked is None or torch.backends.cpu.get_cpu_capability() == asked.upper()
    assert torch.get_num_threads() == int(os.environ["OMP_NUM_THREADS"])
