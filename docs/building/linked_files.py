"""Files outside `docs/` that pages link to become pages of the site: sources as they are, notebooks with their outputs."""

import json
import re
from pathlib import Path

from mkdocs.structure.files import File

LINK = re.compile(r"\]\((?:\.\./)+((?:benchmarks|examples|saved_models|tests|tf_lottery)/[\w/]+\.(?:py|sh|ipynb|md))\)")
LANGUAGES = {".py": "python", ".sh": "sh"}


def on_files(files, config):
    root = Path(config.config_file_path).parent
    linked = {name for page in files.documentation_pages() for name in LINK.findall(page.content_string)}
    for name in sorted(linked):
        files.append(File.generated(config, _uri(name), content=_as_page(name, (root / name).read_text())))
    return files


def on_page_markdown(markdown, page, config, files):
    up = "../" * page.file.src_uri.count("/")
    return LINK.sub(lambda link: f"]({up}{_uri(link[1])})", markdown)


def _uri(name: str) -> str:
    return f"source/{name}" if name.endswith(".md") else f"source/{name}.md"


def _as_page(name: str, text: str) -> str:
    suffix = Path(name).suffix
    if suffix in LANGUAGES:
        return f"# {name}\n\n{_fence(text, LANGUAGES[suffix])}"
    if suffix == ".ipynb":
        text = "\n\n".join(part for cell in json.loads(text)["cells"] for part in _cell(cell))
    return text.replace("](../docs/", "](../../")


def _cell(cell):
    source = "".join(cell["source"])
    yield source if cell["cell_type"] == "markdown" else _fence(source, "python")
    for output in cell.get("outputs", ()):
        data = output.get("data", {"text/plain": output.get("text", "")})
        if "image/png" in data:
            yield f"![](data:image/png;base64,{''.join(data['image/png']).strip()})"
        else:
            yield _fence("".join(data["text/plain"]), "text")


def _fence(text: str, language: str) -> str:
    return f"````{language}\n{text.rstrip()}\n````"
