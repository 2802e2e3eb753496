"""How the package is built, in numbers: `python benchmarks/structure.py [FOLDER OF A CHECKOUT]`.

Needs nothing but Python, imports nothing of adpur, and so measures any commit.
"""

import ast
import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path
from statistics import median

Arrows = dict[str, set[str]]
ROAD = ("keyed", "diffusion", "models", "purify", "defense", "threat", "attacks", "judging")
"""Folders that a reader of one number passes; networks count without their checkpoints."""


def modules(root: Path) -> dict[str, Path]:
    """Every module of the package by its dotted name."""
    found = {}
    for file in sorted((root / "adpur").rglob("*.py")):
        parts = file.relative_to(root).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = file
    return found


def arrows(trees: dict[str, ast.Module]) -> Arrows:
    """What each module imports of the package, wherever in the file, for type checkers too."""
    found: Arrows = defaultdict(set)
    for name, tree in trees.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and node.module:
                inner = (f"{node.module}.{alias.name}" for alias in node.names)
                targets = [full if full in trees else node.module for full in inner]
            elif isinstance(node, ast.Import):
                targets = [alias.name for alias in node.names]
            else:
                continue
            found[name] |= {t for t in targets if t in trees and t not in (name, "adpur")}
    return found


def circles(graph: Arrows) -> list[list[str]]:
    """Groups of nodes that reach each other (Tarjan's strongly connected components)."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found = []

    def visit(node: str) -> None:
        index[node] = low[node] = len(index)
        stack.append(node)
        for other in sorted(graph.get(node, ())):
            if other not in index:
                visit(other)
                low[node] = min(low[node], low[other])
            elif other in stack:
                low[node] = min(low[node], index[other])
        if low[node] == index[node]:
            at = stack.index(node)
            if len(stack) - at > 1:
                found.append(sorted(stack[at:]))
            del stack[at:]

    for node in sorted(graph):
        if node not in index:
            visit(node)
    return found


def folders(graph: Arrows, files: dict[str, Path]) -> Arrows:
    """Arrows between rooms: folders, and modules that stand in none.

    A folder and those inside it are one subject, so that arrows between them do not count.
    """

    def room(name: str) -> str:
        whole = name if files[name].name == "__init__.py" else name.rpartition(".")[0]
        return name if whole == "adpur" else whole

    found: Arrows = defaultdict(set)
    for name, targets in graph.items():
        for target in targets:
            here, there = room(name), room(target)
            if not (f"{here}.".startswith(f"{there}.") or f"{there}.".startswith(f"{here}.")):
                found[here].add(there)
    return found


def layers(root: Path) -> list[list[str]]:
    """The order that `tests/test_layers.py` holds."""
    tree = ast.parse((root / "tests" / "test_layers.py").read_text())
    for node in tree.body:
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "LAYERS":
            value: list[list[str]] = ast.literal_eval(node.value)
            return value
    raise SystemExit("tests/test_layers.py has no LAYERS")


def upward(graph: Arrows, order: list[list[str]]) -> list[str]:
    """Imports of a higher layer."""
    floor = {name: k for k, names in enumerate(order) for name in names}

    def of(module: str) -> int:
        return floor.get([*module.split("."), ""][1], len(order))

    return [
        f"{name} -> {target}"
        for name, targets in sorted(graph.items())
        for target in sorted(targets)
        if name != "adpur" and of(target) > of(name)
    ]


def classes(trees: dict[str, ast.Module]) -> dict[str, list[str]]:
    """Where each class name is defined."""
    found = defaultdict(list)
    for name, tree in trees.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef):
                found[node.name].append(name)
    return found


def bodies(trees: Iterable[ast.Module]) -> Iterator[int]:
    """Lines of every function's body, its docstring left out; 0 where that is all there is."""
    for tree in trees:
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                body = node.body[1:] if ast.get_docstring(node) is not None else node.body
                yield (body[-1].end_lineno or 0) - body[0].lineno + 1 if body else 0


def lines(file: Path) -> int:
    return len(file.read_text().splitlines())


def comments(file: Path) -> int:
    """Lines that are a comment and nothing else."""
    return sum(line.lstrip().startswith("#") for line in file.read_text().splitlines())


def by_folder(files: dict[str, Path]) -> dict[str, int]:
    """Lines below each folder of the package; loose modules together."""
    found: dict[str, int] = defaultdict(int)
    for name, file in files.items():
        parts = name.split(".")
        inside = len(parts) > 2 or (len(parts) == 2 and file.name == "__init__.py")
        found[parts[1] if inside else "(loose)"] += lines(file)
    return dict(found)


def road(files: dict[str, Path]) -> int:
    """Lines that a reader of one number may meet."""
    return sum(
        lines(file)
        for name, file in files.items()
        if name.split(".")[1:2] and name.split(".")[1] in ROAD and ".checkpoints" not in name
    )


def main(root: Path) -> None:
    files = modules(root)
    trees = {name: ast.parse(file.read_text()) for name, file in files.items()}
    graph = arrows(trees)
    rooms = folders(graph, files)
    total, remarks = sum(map(lines, files.values())), sum(map(comments, files.values()))
    named = classes(trees)
    double = sorted(name for name, homes in named.items() if len(homes) > 1)
    sizes = sorted(bodies(trees.values()))
    ninety = sizes[int(0.9 * (len(sizes) - 1))]
    up = upward(graph, layers(root))
    round_modules, round_rooms = circles(graph), circles(rooms)
    rows = [
        ("lines", f"{total:,}"),
        ("files", len(files)),
        ("classes", sum(map(len, named.values()))),
        ("class names with two meanings", f"{len(double)}: {', '.join(double)}"),
        ("comment lines", f"{100 * remarks / total:.2f} % ({remarks})"),
        ("function body, median / p90 / max", f"{median(sizes):.0f} / {ninety} / {sizes[-1]}"),
        ("rooms, arrows between them", f"{len(rooms)}, {sum(map(len, rooms.values()))}"),
        ("circles among modules", _listed([" <-> ".join(c) for c in round_modules])),
        ("circles among folders", _listed([" <-> ".join(c) for c in round_rooms])),
        ("upward imports", _listed(up)),
        ("road keyed ... judging, lines", f"{road(files):,}" if "adpur.judging" in files else "-"),
        ("lines by folder", ", ".join(f"{k} {v}" for k, v in sorted(by_folder(files).items()))),
    ]
    for title, value in rows:
        print(f"{title:36} {value}")


def _listed(found: list[str]) -> str:
    return f"{len(found)}: {'; '.join(found)}" if found else "0"


if __name__ == "__main__":
    main(Path(sys.argv[1]) if sys.argv[1:] else Path(__file__).parent.parent)
