"""`adpur calibrate WEIGHTS`: measure SSNI's score norms of clean images, beside the weights."""

from argparse import ArgumentParser
from collections.abc import Sequence

from adpur.defense.defense import ROWS
from adpur.errors import ConfigError
from adpur.keyed.noise import Noise
from adpur.lit.data import sets
from adpur.models.checkpoints.files import find_weights
from adpur.models.checkpoints.zoo import load_denoiser
from adpur.purify.chain import brought
from adpur.purify.levels.level import ScoreNorm, calibrate
from adpur.purify.levels.reference import STATISTICS, save_reference


def main(argv: Sequence[str]) -> int:
    """Calibrate on the validation images of a data set; never on test images."""
    parser = ArgumentParser("adpur calibrate", description=__doc__)
    parser.add_argument("weights", help="a diffusion folder, as test configs name it")
    parser.add_argument("--data", default="Digits", help="data set (default Digits)")
    parser.add_argument("--horizon", type=int, default=20, help="T' (default 20)")
    parser.add_argument("--levels", type=int, default=20, help="noise levels averaged (default 20)")
    told = "times of the VP-SDE, as released, in place of DDPM's steps"
    parser.add_argument("--continuous", action="store_true", help=told)
    told = "scores of the images themselves, no noise added, as released for --levels 1"
    parser.add_argument("--unnoised", action="store_true", help=told)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args(argv)
    data = getattr(sets, args.data, None)
    if data is None:
        raise ConfigError(f"no data set {args.data!r}; there is: {', '.join(sets.__all__)}")
    images, _, index = data().stacked("validation")
    folder = find_weights(args.weights)
    scorer = load_denoiser(folder).eval()
    images = brought(images, scorer.shape[1:])
    wanted = ScoreNorm(args.horizon, args.levels, args.continuous, not args.unnoised)
    found = calibrate(images, Noise(index, args.seed), scorer, wanted, ROWS)
    save_reference(found, folder)
    print(f"score norms of {found.count} images: mean {found.mean:.4g}, sd {found.sd:.3g}, "
          f"range {found.low:.4g} to {found.high:.4g} -> {folder / STATISTICS}")  # fmt: skip
    return 0
