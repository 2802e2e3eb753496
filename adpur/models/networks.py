"""The networks one defence borrows."""

from torch import Tensor, nn

from adpur.diffusion.denoiser import Denoiser
from adpur.errors import ConfigError
from adpur.keyed.noise import Noise
from adpur.models.keyed import Keyed
from adpur.models.logits import asked


class Networks(nn.Module):
    """A classifier and the diffusion models that serve it, frozen and in evaluation mode.

    Args:
        classifier: any module from [0, 1] images to logits, in a tensor, `ModelOutput`, dict or
            tuple; `Seeded` if it draws by itself.
        denoiser: the diffusion model that purifies; None for an undefended classifier.
        scorer: the diffusion model whose score norms set SSNI's levels; the denoiser by default.
    """

    def __init__(
        self,
        classifier: nn.Module,
        denoiser: Denoiser | None = None,
        scorer: Denoiser | None = None,
    ) -> None:
        super().__init__()
        if not isinstance(classifier, nn.Module):
            raise ConfigError(
                f"networks: expected a classifier that is a torch.nn.Module, got "
                f"{type(classifier).__name__}; call a function in a module's `forward`, take "
                "`.module()` of an exported program"
            )
        self.classifier = classifier
        self._denoiser = denoiser
        self._scorer = scorer if scorer is not None else denoiser
        self._same_shape()
        self.requires_grad_(False).eval()

    @property
    def denoiser(self) -> Denoiser:
        """The diffusion model, or an error that says which one is missing."""
        if self._denoiser is None:
            raise ConfigError(
                "this purifier needs a diffusion model, but networks has no `denoiser`"
            )
        return self._denoiser

    @property
    def scorer(self) -> Denoiser:
        """The model for score norms."""
        return self._scorer if self._scorer is not None else self.denoiser

    @property
    def shape(self) -> tuple[int, ...] | None:
        """(C, H, W) of the classifier's images, None if it does not say."""
        return self._shapes().get("classifier")

    def classify(self, image: Tensor, noise: Noise) -> Tensor:
        """Logits `(B, classes)`; the keys `(B,)` serve a classifier that draws."""
        keys = (noise,) if isinstance(self.classifier, Keyed) else ()
        return asked(self.classifier, image, *keys)

    def train(self, mode: bool = True) -> "Networks":
        """Stay in evaluation mode: a defence has no other."""
        self.training = False
        for net in self.children():
            _evaluating(net)
        return self

    def _shapes(self) -> dict[str, tuple[int, ...]]:
        named = {"classifier": self.classifier, "denoiser": self._denoiser, "scorer": self._scorer}
        shapes = {name: getattr(net, "shape", None) for name, net in named.items()}
        return {name: tuple(shape) for name, shape in shapes.items() if shape is not None}

    def _same_shape(self) -> None:
        """The classifier's may differ: `Resized` goes between, and `Purifier.check` knows."""
        shapes = {name: shape for name, shape in self._shapes().items() if name != "classifier"}
        if len(set(shapes.values())) > 1:
            told = ", ".join(f"{name} {shape}" for name, shape in shapes.items())
            raise ConfigError(f"diffusion models must take images of one (C, H, W), got {told}")


def _evaluating(net: nn.Module) -> None:
    """Evaluation mode; the graphs of `torch.export` have one mode and refuse to be asked."""
    try:
        net.train(False)
    except NotImplementedError:
        net.training = False
        for part in net.children():
            _evaluating(part)
