"""The few pieces of HTML a report is made of; every text is escaped here."""

import base64
import json
from collections.abc import Iterable, Sequence
from html import escape
from itertools import zip_longest
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from adpur.report.draw.plots import svg

STYLE = """
:root { color-scheme: light dark; --ink: #1b1f24; --paper: #fff; --line: #d0d4d9; --soft: #f4f5f7 }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e4e7ea; --paper: #15181c; --line: #3a4048; --soft: #20252b }
}
* { box-sizing: border-box }
body { margin: 0 auto; max-width: 62rem; padding: 1rem; color: var(--ink); background: var(--paper);
  font: 1rem/1.5 system-ui, sans-serif }
h1 { font-size: 1.5rem } h2 { font-size: 1.2rem; margin-top: 2.5rem }
h2, figure, details { border-top: 1px solid var(--line); padding-top: .75rem }
.wide { overflow-x: auto }
table { border-collapse: collapse; font-size: .85rem; font-variant-numeric: tabular-nums }
th, td { padding: .25rem .6rem; text-align: left; border-bottom: 1px solid var(--line);
  white-space: nowrap }
td.text { white-space: normal; min-width: 14rem }
th { background: var(--soft) }
tr.warn td:first-child, tr.fail td:first-child { box-shadow: inset .3rem 0 0 #c44e52 }
tr.fail { font-weight: 600 }
figure { margin: 1.5rem 0 } figcaption { font-size: .9rem; max-width: 44rem; margin-bottom: .5rem }
figure svg { display: block; width: 100%; max-width: 40rem; height: auto }
figure svg text { font-family: system-ui, sans-serif !important }
figure img { max-width: 100%; background: #fff; padding: .5rem }
pre { overflow-x: auto; background: var(--soft); padding: .75rem; font-size: .75rem }
p, li { max-width: 44rem } summary { cursor: pointer }
@media print {
  :root { --ink: #000; --paper: #fff; --line: #999; --soft: #eee }
  body { max-width: none } figure { break-inside: avoid }
}
"""


def document(title: str, body: Iterable[str]) -> str:
    """A whole page that refers to nothing outside itself."""
    return "\n".join(
        [
            "<!doctype html>",
            '<html lang="en"><head><meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<title>{escape(title)}</title><style>{STYLE}</style></head><body>",
            f"<h1>{escape(title)}</h1>",
            *body,
            "</body></html>\n",
        ]
    )


def heading(text: str) -> str:
    """Of a section."""
    return f"<h2>{escape(text)}</h2>"


def paragraph(text: str) -> str:
    """Of plain text."""
    return f"<p>{escape(text)}</p>"


def table(head: Sequence[str], lines: Iterable[Sequence[str]], marks: Sequence[str] = ()) -> str:
    """A table that scrolls by itself on a narrow screen; `marks` are classes of its lines."""
    body = [
        f'<tr class="{escape(mark)}">{"".join(map(_cell, line))}</tr>'
        for line, mark in zip_longest(lines, marks, fillvalue="")
    ]
    top = "".join(f"<th>{escape(cell)}</th>" for cell in head)
    return f'<div class="wide"><table><tr>{top}</tr>{"".join(body)}</table></div>'


def plot(figure: Figure, name: str, caption: str) -> str:
    """A figure as inline SVG; `name` is its own on the page."""
    drawn = svg(figure, name)
    return (
        f"<figure><figcaption>{escape(caption)}</figcaption>"
        f'<div role="img" aria-label="{escape(caption)}">{drawn}</div></figure>'
    )


def picture(file: Path, caption: str) -> str:
    """A PNG, inside the page."""
    data = base64.b64encode(file.read_bytes()).decode()
    return (
        f"<figure><figcaption>{escape(caption)}</figcaption>"
        f'<img alt="{escape(caption)}" src="data:image/png;base64,{data}"></figure>'
    )


def details(summary: str, *inner: str) -> str:
    """What is folded away at first."""
    return f"<details><summary>{escape(summary)}</summary>{''.join(inner)}</details>"


def code(value: Any) -> str:
    """A JSON tree, for reading."""
    return f"<pre>{escape(json.dumps(value, indent=1, sort_keys=True))}</pre>"


def _cell(text: str) -> str:
    kind = ' class="text"' if len(text) > 48 else ""
    return f"<td{kind}>{escape(text)}</td>"
