"""No purification, for attacks that want to see some."""

from dataclasses import dataclass

from torch import Tensor

from adpur.keyed.noise import Noise
from adpur.models.networks import Networks
from adpur.purify.base import Around, Context, Identity, Levels, Purified, Purifier, Shape


@dataclass(frozen=True)
class Still(Around):
    """The identity as a reverse process in which no row moves.

    `DiffAttack` refuses `Identity`, whose owner did not mean it. Where adpur itself asks what an
    attack does to a bare classifier, this stands for it, and there is no deviation to raise.
    """

    inner: Purifier = Identity()

    def check(self, nets: Networks, shape: Shape) -> None:
        """The inner purifier's."""
        self.inner.check(nets, shape)

    def seen(self, x: Tensor) -> Tensor:
        """The inner purifier's."""
        return self.inner.seen(x)

    def purify(self, x: Tensor, noise: Noise, levels: Levels, context: Context) -> Purified:
        """The inner purifier's."""
        if context.path is not None:
            context.path.beside(lambda row, s: x[row])
        return self.inner.purify(x, noise, levels, context)
