"""`adpur weights [PATH]`: known checkpoints and shipped folders, or what one of them holds."""

from argparse import ArgumentParser
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adpur.models.checkpoints.catalogue import KNOWN, UNKNOWN, Checkpoint, hashed, named, sha256

if TYPE_CHECKING:
    from adpur.diffusion.denoiser import Denoiser


def main(argv: Sequence[str]) -> int:
    """List what is known and shipped, or describe a file or a folder; nothing is fetched."""
    parser = ArgumentParser("adpur weights", description=__doc__)
    parser.add_argument("path", nargs="?", help="a downloaded file, or a folder of weights")
    path = parser.parse_args(argv).path
    if path is None:
        lines = listing()
    elif Path(path).is_file():
        lines = file_lines(Path(path))
    else:
        lines = folder_lines(path)
    print(*lines, sep="\n")
    return 0


def listing() -> Iterator[str]:
    """The table of known checkpoints, then the shipped folders."""
    from adpur.models.checkpoints.files import shipped_weights

    yield f"{'name':19} {'licence':22} {'clean accuracy':27} file"
    for known in KNOWN:
        yield f"{known.name:19} {known.licence:22} {known.accuracy or '-':27} {known.file}"
        yield f"    from    {known.source}"
        yield f"    use     {known.use}"
        yield f"    sha256  {known.sha256}"
    yield f"\nshipped: {', '.join(shipped_weights())}"
    yield "adpur weights PATH checks a downloaded file, or describes a folder."


def file_lines(file: Path) -> Iterator[str]:
    """Which known checkpoint a file is, by its sha256 or else its name, and how to use it."""
    digest = sha256(file)
    match = hashed(digest)
    yield f"{file}\n    sha256  {digest}"
    if match is not None:
        yield f"    is      {match.name}: {match.source}"
    else:
        match = next(named(file), None)
        yield f"    is      {_guess(match)}"
    if match is not None:
        yield f"    licence {match.licence}"
    if match is not None:
        yield f"    use     {match.use.replace('FILE', str(file))}"


def _guess(match: Checkpoint | None) -> str:
    if match is None:
        return "not a known checkpoint"
    if match.sha256 == UNKNOWN:
        return f"named like {match.name}, whose sha256 adpur does not know: {match.source}"
    return f"named like {match.name}, but with another sha256 than {match.sha256}"


def folder_lines(name: str) -> Iterator[str]:
    """What a folder of weights holds, once it loads; a ConfigError says why it does not."""
    from adpur.models.checkpoints.files import find_weights

    folder = find_weights(name)
    lines = _classifier_lines if _classifies(folder / "config.json") else _denoiser_lines
    yield str(folder)
    yield from lines(folder)


def _classifies(config: Path) -> bool:
    from adpur.models.checkpoints.json_file import read_json

    return config.is_file() and "architecture" in read_json(config)


def _classifier_lines(folder: Path) -> Iterator[str]:
    from adpur.models.checkpoints.zoo import load_classifier

    made = load_classifier(folder)
    yield f"    classifier  {type(made.net).__name__}"
    yield f"    images      {made.shape}"
    yield f"    parameters  {sum(p.numel() for p in made.parameters()):,}"
    for part in ("mean", "std"):
        yield f"    {part:11} {', '.join(f'{v:.4g}' for v in getattr(made, part).flatten())}"


def _denoiser_lines(folder: Path) -> Iterator[str]:
    from adpur.models.checkpoints.heads import ADAPTERS, learns_variance
    from adpur.models.checkpoints.zoo import load_denoiser

    made = _lightly(load_denoiser, folder)
    yield from _sets(folder)
    net: Any = getattr(made, "net", made)
    inner = getattr(net, "unet", net)
    head = next((kind for kind, adapter in ADAPTERS.items() if type(made) is adapter), "x0")
    yield f"    diffusion   {type(inner).__name__} as {type(made).__name__}, predicts {head}"
    if inner is not net and learns_variance(inner.config):
        yield "    variance    learned; adpur discards it"
    yield f"    images      {made.shape}"
    yield f"    parameters  {sum(p.numel() for p in made.parameters()):,}"
    yield f"    schedule    {type(made.schedule).__name__}, t from 0 to {made.schedule.end:g}"
    if made.max_time < made.schedule.end:
        yield f"    trained on  t up to {made.max_time:g}; larger times are refused"


def _sets(folder: Path) -> Iterator[str]:
    """Which U-Net of a training run's folder was taken, where there are several."""
    others = sorted(p.name for p in folder.glob("unet*") if p.is_dir() and p.name != "unet")
    if others and (folder / "unet").is_dir():
        yield f"    taken       unet; {', '.join(others)} is there too: name it to take it"


def _lightly(load: Callable[[Path], "Denoiser"], folder: Path) -> "Denoiser":
    """Load without initialising the network first, where its code allows it."""
    import torch

    try:
        with torch.device("meta"):
            return load(folder)
    except (NotImplementedError, RuntimeError):
        return load(folder)
