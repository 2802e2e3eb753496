"""Dependencies point down: smaller layer numbers, or the own layer (DESIGN section 4)."""

import ast
from pathlib import Path

import adpur

ROOT = Path(adpur.__file__).parent
LAYERS = [
    ["errors", "types", "noise", "schedule", "rows", "memory"],
    ["models"],
    ["norms", "curve", "level", "grid", "step", "corrector", "guidance"],
    ["purify"],
    ["gradient", "ensemble", "defense"],
    ["threat", "addt"],
    [
        "metrics",
        "store",
        "records",
        "arithmetic",
        "figures",
        "plots",
        "charts",
        "judge",
        "trial",
        "trust",
        "protocol",
    ],
    ["lit"],
    ["report", "analyse", "commands", "explain", "sweep", "stages", "cli", "__main__"],
]
ONLY = {  # a package, and the places that may import it
    "lightning": ("lit", "stages", "explain"),
    "pytorch_lightning": (),
    "diffusers": ("models",),
    "timm": ("models",),
    "wandb": ("lit/loggers",),
    "wandb_workspaces": ("lit/dashboard",),
    "jsonargparse": ("stages", "commands/analyse"),
    "matplotlib": ("figures", "plots", "charts", "report/html", "analyse/analysis"),
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


def test_no_import_points_up() -> None:
    for name, file in files():
        for target in imports(file):
            if target.startswith("adpur."):
                inner = target.removeprefix("adpur.").replace(".", "/")
                if (ROOT / f"{inner}.py").exists() or (ROOT / inner).is_dir():
                    assert layer(inner) <= layer(name), f"{name} imports {target}"


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
        if not name.startswith(
            (
                "lit/training",
                "lit/diffusion",
                "lit/classifier",
                "lit/data",
                "trust/probes",
                "models/keyed",
            )
        ):
            text = file.read_text()
            assert not [
                word for word in banned if f"{word}" in text.replace(">>> defense(torch.rand(", "")
            ], name
