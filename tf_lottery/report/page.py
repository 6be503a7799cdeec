"""The page of a report: one HTML file with the figures in it, which asks nothing of any other place."""

from __future__ import annotations

import base64
import importlib.resources
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from string import Template

from tf_lottery.base.files import whole_file
from tf_lottery.base.table import Table
from tf_lottery.report.style import LeftOut, Picture
from tf_lottery.runs.folder import Folder


@dataclass(frozen=True)
class About:
    """What a page is about.

    Attributes:
      title: What it is called.
      what: What was trained on what, in words.
      words: One sentence: what came of it.
      remarks: Sentences about what went wrong.
      settings: By name.
    """

    title: str
    what: str
    words: str
    remarks: Sequence[str]
    settings: Mapping[str, str]


def about(run: Folder, words: str) -> About:
    """What the page of a run is about."""
    spec = run.spec() or {"settings": {}, "versions": {}}
    settings = {**spec["settings"], **{f"version of {name}": value for name, value in spec["versions"].items()}}
    told = {key: plain(value) for key, value in settings.items() if value not in (None, [], {})}
    return About(
        run.name, _what(spec["settings"]), words, [f"{remark}." for remark in (*run.chosen(), *run.remarks())], told
    )


def write(
    path: Path,
    about: About,
    pictures: Sequence[Picture],
    left_out: Sequence[LeftOut],
    table: Table,
    more: Mapping[str, Table] | None = None,
    numbers: str = "All numbers",
) -> None:
    """Writes the page; the figures lie beside it as PNG files under their names, and `more` are further tables by title.

    Over `table` stands `numbers`.
    """
    template = Template(importlib.resources.files("tf_lottery.report").joinpath("page.html").read_text("utf-8"))
    html = template.substitute(
        title=escape(about.title),
        what=escape(about.what),
        words=escape(about.words),
        figures="\n".join(_figure(picture, path.parent / f"{picture.name}.png") for picture in pictures),
        numbers=escape(numbers),
        note=escape(table.note),
        table=table.html(),
        notes="\n".join([_list("Notes", about.remarks), *(_tabled(*each) for each in (more or {}).items())]),
        left_out=_list("Left out", [f"{each.title}: {each.why}." for each in left_out]),
        settings="\n".join(f"<dt>{escape(key)}</dt><dd>{escape(value)}</dd>" for key, value in about.settings.items()),
    )
    with whole_file(path) as unfinished:
        unfinished.write_text(html, "utf-8")


def _figure(picture: Picture, png: Path) -> str:
    data = base64.b64encode(png.read_bytes()).decode("ascii")
    return (
        f'<figure id="{picture.name}"><h2>{escape(picture.title)}</h2>'
        f'<img alt="{escape(picture.title)}" src="data:image/png;base64,{data}">'
        f"<figcaption>{escape(picture.caption)}</figcaption></figure>"
    )


def _list(title: str, lines: Sequence[str]) -> str:
    if not lines:
        return ""
    items = "\n".join(f"<li>{escape(line)}</li>" for line in lines)
    return f"<section><h2>{title}</h2><ul>\n{items}\n</ul></section>"


def _tabled(title: str, table: Table) -> str:
    return (
        f'<section><h2>{escape(title)}</h2><div class="wide" tabindex="0" role="region" aria-label="{escape(title)}">\n'
        f"{table.html()}\n</div></section>"
    )


def _what(settings: dict) -> str:
    """What was trained on what, in words."""
    known = [settings.get(key) for key in ("model", "dataset")]
    return " on ".join(filter(None, known)) or "A run of tf-lottery"


def plain(value) -> str:
    """A setting as text."""
    return value if isinstance(value, str) else "none" if value is None else json.dumps(value)
