"""`adpur convert FILE OUT`: others' diffusion models and CIFAR classifiers as weights folders."""

from argparse import ArgumentParser
from collections.abc import Sequence
from pathlib import Path

from adpur.models.checkpoints.convert import BETAS, KINDS, Said, convert
from adpur.models.checkpoints.zoo import load_classifier, load_denoiser


def main(argv: Sequence[str]) -> int:
    """Convert, load what was written, and say what the file itself did not."""
    parser = ArgumentParser("adpur convert", description=__doc__)
    parser.add_argument(
        "file", type=Path, help="a .pkl, .pth, .pt or .safetensors; no code in it is run"
    )
    parser.add_argument("out", type=Path, help="a new weights folder")
    parser.add_argument("--kind", choices=KINDS, help="default: guessed from the content")
    parser.add_argument("--size", type=int, help="of the images, where the file lacks it")
    parser.add_argument("--head-dim", type=int, help="channels a head, guided-diffusion")
    parser.add_argument("--mean", type=float, nargs="+", default=[], help="of a classifier")
    parser.add_argument("--std", type=float, nargs="+", default=[], help="of a classifier")
    parser.add_argument("--activation", choices=["relu", "silu"], default="relu", help="WideResNet")
    parser.add_argument("--sde", choices=["vp"], help="vouch for the SDE of a score_sde NCSN++")
    parser.add_argument("--weights", help="which set of weights, where the file holds several")
    parser.add_argument("--steps", type=int, default=1000, help="training times, guided-diffusion")
    parser.add_argument("--betas", choices=BETAS, default="linear", help="guided-diffusion")
    parser.add_argument("--label-scale", type=float, default=1.0, help="improved-diffusion: .25")
    args = parser.parse_args(argv)
    said = Said(
        args.size, args.head_dim, args.sde, args.mean, args.std, args.activation, args.weights,
        args.steps, args.betas, args.label_scale,
    )  # fmt: skip
    done = convert(args.file, args.out, args.kind, said)
    load = load_classifier if done.kind == "classifier" else load_denoiser
    net = load(args.out)
    count = sum(p.numel() for p in net.parameters())
    print(f"kind: {done.kind}{'' if args.kind else ' (guessed from the content)'}")
    print("\n".join(done.notes))
    print(f"{count:,} parameters, images of {net.shape} (C, H, W) -> {args.out}")
    return 0
