"""A Sphinx extension: the public names of `adpur`, from its own list of them.

`.. public:: MODULE ...` documents every public name of some modules. The build warns of a name
that no page has, and `-W` makes that an error.
"""

import inspect
import re
from collections.abc import Iterator
from importlib import import_module
from typing import Any

from docutils import nodes
from docutils.statemachine import StringList
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.util import logging
from sphinx.util.docutils import SphinxDirective

import adpur

LOGGER = logging.getLogger(__name__)
ROW = ("| ", "|-")
"""How a line of a Markdown table begins."""
CODE = re.compile(r"(?<!`)`([^`\n]+)`(?!`)")


class Public(SphinxDirective):
    """`.. public:: adpur.diffusion.step adpur.diffusion.grid`."""

    required_arguments = 1
    final_argument_whitespace = True

    def run(self) -> list[nodes.Node]:
        """What autodoc makes of each name, in the order of the source."""
        lines = [line for home in self.arguments[0].split() for line in entries(home)]
        found = nodes.section()
        found.document = self.state.document
        self.state.nested_parse(StringList(lines, source=__file__), 0, found)
        return found.children


def entries(home: str) -> Iterator[str]:
    """Autodoc's directives for the public names of a module."""
    order = list(vars(import_module(home)))
    for name in sorted(adpur._HOMES[home], key=order.index):
        value = getattr(adpur, name)
        kind = "class" if inspect.isclass(value) else "function"
        kind = kind if kind == "class" or inspect.isfunction(value) else "data"
        yield f".. auto{kind}:: adpur.{name}"
        if kind == "class" and explained(value):
            yield "   :members:"
        yield ""


def explained(found: type) -> bool:
    """Whether its methods are worth a place: a leaf has those of its base, or Lightning's hooks."""
    homes = (base.__module__ for base in found.__bases__)
    return inspect.isabstract(found) or not any(h.startswith(("adpur", "lightning")) for h in homes)


def plain(app: Sphinx, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """Docstrings as they are meant: `x` is code; stars and bars are no markup, nor is `x_`."""
    code = False
    for n, line in enumerate(lines):
        code = line.lstrip().startswith(">>>") or (code and bool(line.strip()))
        if not code and not line.startswith(ROW):
            lines[n] = _plain(line)
    lines[:] = _tabled(lines)


def shown(app: Sphinx, what: str, name: str, obj: Any, skip: bool, options: Any) -> bool | None:
    """A NamedTuple's fields stand in its signature already."""
    return True if (obj.__doc__ or "").startswith("Alias for field number") else None


def valid(
    app: Sphinx, what: str, name: str, obj: Any, options: Any, told: str | None, back: str | None
) -> tuple[str, str | None] | None:
    """Python's `<factory>` of a field is no expression, and would end the reading of the types."""
    return (told.replace("<factory>", "..."), back) if told else None


def _plain(line: str) -> str:
    doubled = CODE.sub(r"``\1``", line)
    return "".join(_escaped(part) for part in re.split(r"(``[^`]+``)", doubled))


def _tabled(lines: list[str]) -> Iterator[str]:
    """Markdown's tables as lists, which is what reStructuredText makes tables of."""
    above = ""
    for line in lines:
        if line.startswith(ROW) and not above.startswith(ROW):
            yield from (".. list-table::", "   :header-rows: 1", "")
        if not line.startswith(ROW):
            yield line
        elif not set(line) <= set("|-"):
            first, *rest = (_plain(cell.strip()) for cell in line.strip("|").split("|"))
            yield f"   * - {first}"
            yield from (f"     - {cell}" for cell in rest)
        above = line


def _escaped(part: str) -> str:
    return part if part.startswith("``") else re.sub(r"([*|]|_(?!\w))", r"\\\1", part)


def complete(app: Sphinx, env: BuildEnvironment) -> None:
    """Warn of public names that no page has."""
    told = env.domains.python_domain.objects
    for name in adpur.__all__:
        if f"adpur.{name}" not in told:
            home = adpur._HOME[name]
            LOGGER.warning("adpur.%s is on no page of docs/api; name %s there", name, home)


def setup(app: Sphinx) -> dict[str, bool]:
    """Called by Sphinx."""
    import_module("adpur.cli.entry").quiet_threads()
    app.add_directive("public", Public)
    app.connect("autodoc-skip-member", shown)
    app.connect("autodoc-process-signature", valid)
    app.connect("autodoc-process-docstring", plain, priority=400)  # before napoleon
    app.connect("env-check-consistency", complete)
    return {"parallel_read_safe": True}
