"""The page of a report: one HTML file with the figures in it, which asks nothing of any other place."""

from __future__ import annotations

import base64
import importlib.resources
import json
from collections.abc import Sequence
from html import escape
from pathlib import Path
from string import Template

from tf_lottery.base.files import whole_file
from tf_lottery.base.table import Table
from tf_lottery.report.style import LeftOut, Picture
from tf_lottery.runs.results import Run


def write(
    path: Path, run: Run, words: str, pictures: Sequence[Picture], left_out: Sequence[LeftOut], table: Table
) -> None:
    """Writes the page; the figures lie beside it as PNG files under their names."""
    spec = run.spec() or {"settings": {}, "versions": {}}
    settings = {**spec["settings"], **{f"version of {name}": value for name, value in spec["versions"].items()}}
    template = Template(importlib.resources.files("tf_lottery.report").joinpath("page.html").read_text("utf-8"))
    html = template.substitute(
        title=escape(run.name),
        what=escape(_what(spec["settings"])),
        words=escape(words),
        figures="\n".join(_figure(picture, path.parent / f"{picture.name}.png") for picture in pictures),
        note=escape(table.note),
        table=table.html(),
        notes=_list("Notes", run.remarks()),
        left_out=_list("Left out", [f"{each.title}: {each.why}" for each in left_out]),
        settings="\n".join(
            f"<dt>{escape(key)}</dt><dd>{escape(_plain(value))}</dd>" for key, value in settings.items()
        ),
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
    items = "\n".join(f"<li>{escape(line)}.</li>" for line in lines)
    return f"<section><h2>{title}</h2><ul>\n{items}\n</ul></section>"


def _what(settings: dict) -> str:
    """What was trained on what, in words."""
    known = [settings.get(key) for key in ("model", "dataset")]
    return " on ".join(filter(None, known)) or "A run of tf-lottery"


def _plain(value) -> str:
    return value if isinstance(value, str) else "none" if value is None else json.dumps(value)
