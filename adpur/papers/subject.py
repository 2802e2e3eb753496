"""What an analysis looks at: a row of a test config, its images, and who attacks it."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from adpur.cli.defaults import quiet
from adpur.cli.run import parse
from adpur.defense.defense import Defense
from adpur.errors import ConfigError
from adpur.judging.judge import Draws
from adpur.judging.records import describe
from adpur.judging.trial import AttackBlock, Examples, Trial, unknowable
from adpur.keyed.noise import Noise
from adpur.lit.cores import idle_cores
from adpur.lit.data.base import ImageData, Split
from adpur.lit.test.evaluation import Evaluation
from adpur.lit.test.identity import of_networks, of_versions
from adpur.threat.knowledge import Knowledge
from adpur.threat.trace import Trace, Watch, unwatched


def silent(text: str) -> None:
    """Tell nobody."""


def nowhere(split: Split, count: int) -> Examples:
    """No data but the images at hand."""
    raise ConfigError(f"expected a data module with a split {split!r}, got images alone")


@dataclass(frozen=True)
class Subject:
    """A defence under test.

    Args:
        row: its name in the config.
        defense, draws: the defence, and how many draws its images are judged by.
        images: those it is asked about.
        blocks: the attack blocks that name it, in the config's order.
        sources: the defences of the config's other rows, which a block may attack in its place.
        tell: told what is being done, line by line.
        split: the first images of a split of the data, training images among them.
    """

    row: str
    defense: Defense
    draws: Draws
    images: Examples
    blocks: tuple[AttackBlock, ...] = ()
    sources: Mapping[str, Defense] = field(default_factory=dict)
    tell: Callable[[str], None] = silent
    split: Callable[[Split, int], Examples] = nowhere

    def block(self, name: str | None = None) -> AttackBlock:
        """The attack block of a name; by default the first."""
        known = {block.name: block for block in self.blocks}
        if not known or (name is not None and name not in known):
            raise ConfigError(
                f"row {self.row!r} has no attack block{f' {name!r}' if name else ''}; "
                f"there is: {', '.join(known) or 'none; leave the row out with --rows'}"
            )
        return known[name] if name is not None else self.blocks[0]

    def trial(self, block: str | None = None, eps: float | None = None) -> Trial:
        """A block's trial at `eps`, by default the largest radius of the block.

        Without the block's own cosine: unrolled, it holds all of a purification's memory.
        """
        chosen = self.block(block)
        return self.at(chosen, eps if eps is not None else chosen.largest)

    def at(self, block: AttackBlock, eps: float) -> Trial:
        """A block's trial at `eps`, without its cosine."""
        if (name := block.attacked(self.row)) == self.row:
            attacked, random = self.defense, self.draws.random
        else:
            attacked = self.sources[name]
            random = attacked.random(self.images.x)
        return replace(block.trial(attacked, eps, random), cosine=0)

    def own(self, block: str | None = None, eps: float | None = None) -> Trial:
        """`trial`, of a block whose attacker has this very row."""
        trial = self.trial(block, eps)
        if trial.defense is not self.defense:
            raise ConfigError(
                f"row {self.row!r}: block {self.block(block).name!r} attacks another row (source); "
                "choose one that attacks this row with --block"
            )
        return trial

    def knowing(self, trial: Trial, knowledge: Knowledge) -> Trial:
        """The trial of an attacker who knows this of the noise."""
        if unknowable(self.defense, knowledge):
            raise ConfigError(
                f"row {self.row!r} draws by itself, and nobody can know that noise; leave it out "
                "with --rows"
            )
        return replace(trial, knowledge=knowledge)

    def attacked(self, trial: Trial, watch: Watch = unwatched) -> Tensor:
        """Adversarial images `(B, C, H, W)` of a trial, brought into its set as `judge` does.

        `watch` is shown every image at which the attack asks for a gradient.
        """
        (x, y, noise), attack = self.images, trial.attack
        told = f"{self.row}, eps {attack.eps:g}"
        trace = Trace(len(x), lambda text: self.tell(f"{told}: {text}"), watch)
        oracle = trial.oracle(y, noise, trial.knowledge.each()[0])
        x_adv = attack.run(replace(oracle, trace=trace), x)
        return attack.norm.admitted(x_adv.detach(), x, attack.eps).image


def identity(seen: Sequence[Subject]) -> dict[str, Any]:
    """What makes the numbers of these rows what they are."""
    first = seen[0]
    return {
        "rows": {s.row: describe(s.defense.purifier) for s in seen},
        "networks": {s.row: of_networks(s.defense.networks) for s in seen},
        "blocks": {s.row: {b.name: describe(b.attacks[0]) for b in s.blocks} for s in seen},
        "images": first.images.noise.index.tolist(),
        "seed": first.images.noise.seed,
        "R": first.defense.rows,
        "draws": first.draws.evaluate,
        "versions": of_versions(),
    }


def subjects(
    config: str, flags: Sequence[str] = (), limit: int = 64, tell: Callable[[str], None] = silent
) -> list[Subject]:
    """The rows of a test config, in its order, each with the first `limit` of its images.

    `flags` are those of `adpur test`; no run folder is touched.
    """
    if limit < 1:
        raise ConfigError(f"expected at least one image, got --images {limit}")
    quiet()
    cli = parse("test", ["-c", config, "--trainer.logger=false", *flags])
    module, data = cli.model, cli.datamodule
    if not isinstance(module, Evaluation) or not isinstance(data, ImageData):
        raise ConfigError(f"{config} is not a test config: adpur configs lists those")
    module.read_blocks(cli.trainer.callbacks, data.classes)  # type: ignore[attr-defined]
    device = cli.trainer.strategy.root_device
    module.to(device).eval()

    def split(name: Split, count: int) -> Examples:
        size = len(data.split(name))  # type: ignore[arg-type]
        return _images(data, name, range(min(count, size)), module.seed, device)

    images = _images(data, data.evaluate, data.subset[:limit], module.seed, device)
    made = []
    for row, defense in module.defenses.items():
        defense.workers = module.workers or idle_cores(cli.trainer)
        blocks = tuple(block for block, its in module.placed() if its == row)
        others = {name: other for name, other in module.defenses.items() if name != row}
        draws = module.draws_of(row, images.x)
        made.append(Subject(row, defense, draws, images, blocks, others, tell, split))
    return made


def _images(
    data: ImageData, name: Split, chosen: Iterable[int], seed: int, device: torch.device
) -> Examples:
    split = data.split(name)
    parts = zip(*(split[i] for i in chosen), strict=True)
    x, y, index = (torch.stack(part).to(device) for part in parts)
    return Examples(x, y, Noise(index, seed))
