"""The page that a command writes beside its pictures: what came out, and what to do next."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from hindgrad.apps.report.page import Page, Picture, Section, Table, Words

REPORT = "report.html"

WIDE = 1000
"""Pixels of the page that a picture takes."""


def write_page(
    folder: Path,
    title: str,
    words: Sequence[str],
    tables: Sequence[Table],
    files: Mapping[str, str],
    after: Sequence[str],
    figures: Sequence[Section] = (),
) -> None:
    """Writes `report.html` into a folder.

    **Arguments:**

    - `folder`: where the pictures are already, which the page holds unless it has `figures`.
    - `title`: of the page.
    - `words`: the outcome.
    - `tables`: the same in numbers.
    - `files`: the names of all files that the command may write, and what they are.
    - `after`: what to do next.
    - `figures`: in place of the pictures.
    """
    pictures = [
        Section(about.capitalize(), [Picture((folder / name).read_bytes(), about, WIDE)])
        for name, about in files.items()
        if name.endswith(".png") and (folder / name).is_file()
    ]
    page = Page(
        title,
        [
            Section("What came out", [*map(Words, words), *tables]),
            *([Section("What to do next", [*map(Words, after)])] if after else []),
            *(figures or pictures),
        ],
    )
    (folder / REPORT).write_text(page.html(), encoding="utf-8")
