"""What a classifier sees before it decides."""

from typing import Any

from torch import Tensor, nn

from adpur.errors import ConfigError


class Penultimate(nn.Module):
    """The input `(B, num_features)` of a classifier's last linear layer, its logits' only source.

    >>> import torch
    >>> from adpur.models.classifiers import CifarResNet
    >>> Penultimate(CifarResNet(blocks=1))(torch.zeros(2, 3, 32, 32)).shape
    torch.Size([2, 64])
    """

    def __init__(self, classifier: nn.Module) -> None:
        super().__init__()
        self.classifier = classifier
        self.head = ([None, *(m for m in classifier.modules() if isinstance(m, nn.Linear))])[-1]
        if self.head is None:
            raise ConfigError(f"expected a classifier with a linear head, got {classifier}")
        self.num_features = self.head.in_features

    def forward(self, x: Tensor) -> Tensor:
        """Features of [0, 1] images."""
        assert self.head is not None
        seen: list[tuple[Tensor, Tensor]] = []

        def note(head: nn.Module, inputs: tuple[Any, ...], logits: Tensor) -> None:
            seen.append((inputs[0], logits))

        hook = self.head.register_forward_hook(note)
        try:
            answer = self.classifier(x)
        finally:
            hook.remove()
        features, logits = seen[-1]
        if answer is not logits or features.dim() != 2:
            raise ConfigError("expected a classifier whose logits are its last linear layer's")
        return features
