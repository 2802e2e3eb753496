"""Tables as Markdown, and the names columns have in all of them."""

from adpur.judging.scoreboard import Column


def label(column: Column) -> str:
    """What was done to the images of a column.

    >>> label(Column("ddpm")), label(Column("ddpm", "pgd", 0.2))
    ('clean', 'pgd, eps 0.2')
    """
    return column.attack if column.clean else f"{column.attack}, eps {radius(column.eps)}"


def radius(eps: float) -> str:
    """A radius the way the field writes it: a whole number of 255ths as such.

    >>> radius(8 / 255), radius(0.2), radius(0.5)
    ('8/255', '0.2', '0.5')
    """
    levels = round(255 * eps, 9)
    short = len(f"{eps:g}") <= 4  # 0.2 is 51/255, and nobody calls it that
    return (
        f"{levels:.0f}/255" if levels == int(levels) and 0 < eps < 1 and not short else f"{eps:g}"
    )


def markdown(body: list[list[str]]) -> list[str]:
    """Lines of a table whose first line is its head."""
    safe = [[cell.replace("|", "\\|") for cell in line] for line in body]
    widths = [max(len(line[k]) for line in safe) for k in range(len(safe[0]))]
    lines = [
        "| " + " | ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)) + " |"
        for line in safe
    ]
    return [lines[0], "|" + "|".join("-" * (w + 2) for w in widths) + "|", *lines[1:]]
