"""Lightning's Trainer, with two of its traps closed."""

from typing import Any

import lightning.pytorch as pl


class Trainer(pl.Trainer):
    """`lightning.pytorch.Trainer` for adpur's stages; every argument of it works.

    Declared here because Lightning's own annotations turn `limit_test_batches: 1` into 1.0, all
    batches, when read from YAML; and inference mode, in which no attack can run, is off.
    """

    def __init__(
        self,
        *args: Any,
        limit_train_batches: int | float | None = None,
        limit_val_batches: int | float | None = None,
        limit_test_batches: int | float | None = None,
        inference_mode: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            *args,
            limit_train_batches=limit_train_batches,
            limit_val_batches=limit_val_batches,
            limit_test_batches=limit_test_batches,
            inference_mode=inference_mode,
            **kwargs,
        )
