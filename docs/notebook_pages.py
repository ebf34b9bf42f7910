"""For the site: each notebook becomes a page, with the outputs stored in it; its links are checked
as those of other pages are."""

import re

import nbformat
from mkdocs.structure.files import File

NOTEBOOK = re.compile(r"(\]\([^)\s:]+)\.ipynb\b")
"""The beginning of a link to one."""


def on_files(files, *, config):
    for notebook in [file for file in files if file.src_uri.endswith(".ipynb")]:
        place = notebook.src_uri.removesuffix(".ipynb") + ".md"
        files.append(File.generated(config, place, content=markdown(notebook.content_string)))
    return files


def on_page_markdown(text, *, page, files, **_):
    """Links to a notebook lead to its page, but for the one on the page to the file itself."""
    text = NOTEBOOK.sub(r"\1.md", text)
    source = page.file.src_uri.removesuffix(".md") + ".ipynb"
    if source in files.src_uris:
        text += f"\n\n[This page as a notebook]({source.rpartition('/')[2]})\n"
    return text


def markdown(notebook: str) -> str:
    """The cells of a notebook and what they gave, as a page."""
    parts = []
    for cell in nbformat.reads(notebook, as_version=4).cells:
        parts.append(_fenced(cell.source, "python") if cell.cell_type == "code" else cell.source)
        parts += map(_output, cell.get("outputs", []))
    return "\n\n".join(parts) + "\n"


def _output(output):
    if output.output_type == "stream":
        return _fenced(output.text, "text")
    if picture := output.data.get("image/png"):
        return f"![Picture](data:image/png;base64,{picture.replace(chr(10), '')})"
    return _fenced(output.data["text/plain"], "text")


def _fenced(text, language):
    return f"```{language}\n{text.rstrip()}\n```"
