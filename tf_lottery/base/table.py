"""A table of words and numbers that is the same on a terminal, in Markdown and in HTML."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import rich.table


@dataclass(frozen=True)
class Table:
    """Headings and rows of text; the first column is words, the others are numbers.

    Attributes:
      headings: One for each column.
      rows: As many cells in each.
      note: What is said of it where there is room.
      words: The columns, beside the first, that are words too.
      whole: How many columns, from the first on, a narrow terminal does not break.

    >>> print(Table(["", "bytes"], [["dense", "1,000"], ["pruned", "90"]], "").markdown(), end="")
    | | bytes |
    | --- | --: |
    | dense | 1,000 |
    | pruned | 90 |
    """

    headings: Sequence[str]
    rows: Sequence[Sequence[str]]
    note: str = ""
    words: Sequence[int] = ()
    whole: int = 0

    def markdown(self) -> str:
        ends = ["---" if column in (0, *self.words) else "--:" for column in range(len(self.headings))]
        return (
            "\n".join(f"| {' | '.join(line)} |".replace("|  |", "| |") for line in [self.headings, ends, *self.rows])
            + "\n"
        )

    def html(self) -> str:
        def row(cells: Sequence[str], tag: str) -> str:
            first, *others = (escape(cell) for cell in cells)
            said = [' class="words"' if column in self.words else "" for column in range(1, len(cells))]
            return (
                f"<tr><th>{first}</th>{''.join(f'<{tag}{how}>{cell}</{tag}>' for how, cell in zip(said, others))}</tr>"
            )

        body = "\n".join(row(cells, "td") for cells in self.rows)
        return f"<table><thead>{row(self.headings, 'th')}</thead>\n<tbody>{body}</tbody></table>"

    def __rich__(self) -> rich.table.Table:
        from rich.table import Table as RichTable
        from rich.text import Text

        shown = RichTable()
        for column, heading in enumerate(self.headings):
            justify = "left" if column in (0, *self.words) else "right"
            whole = column < self.whole
            shown.add_column(Text(heading), justify=justify, overflow="fold", no_wrap=whole)  # type: ignore[arg-type]  # rich names the two
        for cells in self.rows:
            shown.add_row(*(Text(cell) for cell in cells))
        return shown

    def __str__(self) -> str:
        return in_text(self, width=120)


def in_text(*shown, width: int) -> str:
    """What rich makes of things on a terminal of that width, without colours."""
    from rich.console import Console

    console = Console(width=width, color_system=None, force_terminal=False, highlight=False)
    with console.capture() as captured:
        for each in shown:
            console.print(each, soft_wrap=False)
    return "\n".join(line.rstrip() for line in captured.get().rstrip().splitlines())
