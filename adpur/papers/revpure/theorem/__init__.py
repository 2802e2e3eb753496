"""RevPure's Theorem 1: `python -m adpur.papers.revpure.theorem`."""
