"""What one step of PGD crosses: `python benchmarks/frames.py [CONFIG]`.

Runs `adpur test` on two images until PGD first asks for a gradient through the purifier, and prints
adpur's own frames from the command to the diffusion network, and in how many files they are.
"""

import sys
import tempfile
import traceback
from pathlib import Path
from typing import Any

import torch
from torch import nn

import adpur

ROOT = Path(adpur.__file__).parent


class Reached(BaseException):
    """The network is called; not an Exception, so that nothing on the way answers it."""


def own(stack: traceback.StackSummary) -> list[traceback.FrameSummary]:
    """The frames of the package, innermost last."""
    return [frame for frame in stack if ROOT in Path(frame.filename).parents]


def crossed(config: str) -> list[traceback.FrameSummary]:
    """Frames from the command line to the first diffusion network that PGD asks."""
    from adpur.cli import main
    from adpur.diffusion.denoiser import Denoiser

    found: list[traceback.FrameSummary] = []
    denoisers = list[Denoiser]()

    def look(module: nn.Module, args: Any) -> None:
        frames = own(traceback.extract_stack())
        if not any(frame.filename.endswith("attacks/pgd.py") for frame in frames):
            return
        if isinstance(module, Denoiser):
            denoisers.append(module)
        elif denoisers:
            found.extend(frames)
            raise Reached

    hook = torch.nn.modules.module.register_module_forward_pre_hook(look)
    few = ["--data.init_args.limit=2", "--trainer.logger=false", "--model.init_args.workers=1"]
    try:
        with tempfile.TemporaryDirectory() as folder:
            main(["test", "-c", config, *few, "--model.init_args.trust=none", f"--run={folder}/r"])
    except Reached:
        pass
    finally:
        hook.remove()
    return found


if __name__ == "__main__":
    frames = crossed(sys.argv[1] if sys.argv[1:] else "ssni_digits")
    for frame in frames:
        print(f"{Path(frame.filename).relative_to(ROOT)!s:32} {frame.name}")
    print(f"{len(frames)} frames in {len({frame.filename for frame in frames})} files")
