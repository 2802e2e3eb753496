"""The trainer, and what a run does with its processes and signals."""
