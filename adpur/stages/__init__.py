"""`adpur fit | validate | test`: one config, one run folder, one Lightning stage."""

from adpur.stages.run import parse, parse_model, run

__all__ = ["parse", "parse_model", "run"]
