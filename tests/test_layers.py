"""Dependencies point down: folders in the order of CONTRIBUTING's table, and no circles."""

import ast
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import adpur

ROOT = Path(adpur.__file__).parent
LAYERS = [
    ["errors", "types", "shipped"],
    ["keyed"],
    ["diffusion"],
    ["models"],
    ["purify"],
    ["defense"],
    ["threat"],
    ["attacks"],
    ["addt"],
    ["judging"],
    ["trust"],
    ["report"],
    ["lit"],
    ["cli"],
    ["papers"],
    ["api", "__main__"],
]
"""What stands in adpur/, from the bottom to the top."""
ONLY = {  # a package, and the places that may import it
    "torch": tuple(n for names in LAYERS for n in names if n not in ("errors", "shipped")),
    "lightning": ("lit", "cli"),
    "pytorch_lightning": (),
    "diffusers": ("models", "diffusion/adapters"),
    "huggingface_hub": ("models/checkpoints/fetch", "models/timm_nets"),
    "timm": ("models", "lit/fit/muon"),
    "wandb": ("lit/logging/loggers",),
    "wandb_workspaces": ("lit/logging/dashboard",),
    "jsonargparse": ("cli", "papers/analyse"),
    "matplotlib": ("report/draw", "report/html", "papers"),
}


def layer(module: str) -> int:
    return next(k for k, names in enumerate(LAYERS) if module.split("/")[0] in names)


def imports(file: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found


def files() -> list[tuple[str, Path]]:
    return [
        (str(f.relative_to(ROOT).with_suffix("")), f)
        for f in ROOT.rglob("*.py")
        if f != ROOT / "__init__.py"
    ]


def own(file: Path) -> Iterator[str]:
    """The modules of adpur that a file imports, by their paths."""
    for target in imports(file):
        inner = target.removeprefix("adpur.").replace(".", "/")
        if target.startswith("adpur.") and (ROOT / f"{inner}.py").exists():
            yield inner
        elif target.startswith("adpur.") and (ROOT / inner).is_dir():
            yield f"{inner}/__init__"


def test_everything_has_a_layer() -> None:
    placed = {name for names in LAYERS for name in names}
    for name, _ in files():
        assert name.split("/")[0] in placed, f"{name}: put it into a folder, or name it in LAYERS"


def test_no_import_points_up() -> None:
    for name, file in files():
        for target in own(file):
            assert layer(target) <= layer(name), f"{name} imports {target}"


def test_no_module_imports_in_a_circle() -> None:
    """Imports inside functions and for type checkers count; `adpur` itself loads by need."""
    acyclic({name: {t for t in own(file) if t != name} for name, file in files()})


def test_no_folder_imports_in_a_circle() -> None:
    """A folder and those inside it are one subject."""
    graph: dict[str, set[str]] = {}
    for name, file in files():
        here = Path(name).parent
        for target in own(file):
            there = Path(target).parent
            if not (here.is_relative_to(there) or there.is_relative_to(here)):
                graph.setdefault(str(here), set()).add(str(there))
    acyclic(graph)


def acyclic(graph: dict[str, set[str]]) -> None:
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        raise AssertionError(f"a circle: {' <- '.join(error.args[1])}") from None


def test_heavy_packages_stay_where_they_belong() -> None:
    for name, file in files():
        for target in imports(file):
            allowed = ONLY.get(target.split(".")[0])
            assert allowed is None or name.startswith(allowed), f"{name} imports {target}"


def test_nothing_draws_from_the_global_generator() -> None:
    """Purify, attack and evaluate are handed their randomness."""
    banned = (
        "torch.randn",
        "torch.rand(",
        "randn_like",
        "rand_like",
        "np.random.rand",
        "manual_seed",
    )
    for name, file in files():
        # two lend the generators a state: to see who moves it, and for classifiers that draw
        if not name.startswith(("lit/fit", "lit/data", "trust/probes", "models/keyed")):
            text = file.read_text()
            assert not [
                word for word in banned if f"{word}" in text.replace(">>> defense(torch.rand(", "")
            ], name
