"""One page of HTML with all that belongs to it, which asks nothing of any network.

    page = Page("Flowers", [Section("What was found", [Words("Two labels look wrong.")])])
    path.write_text(page.html())

Whatever is given is shown as text: the template escapes it, and figures of plotly, which has
markup of its own, take names from the data through `plain`.
"""

import base64
import html
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any, ClassVar, Literal, final

import jinja2
import plotly.io
from markupsafe import Markup
from plotly.graph_objects import Figure as Plotly

AXIS = {"gridcolor": "#e6eaee", "zerolinecolor": "#9aa6b2", "automargin": True}
"""How an axis of a figure looks."""

CONFIG = {"responsive": True, "displaylogo": False, "displayModeBar": False}


@final
@dataclass(frozen=True)
class Words:
    """A paragraph."""

    kind: ClassVar = "words"
    text: str


@final
@dataclass(frozen=True)
class Verdict:
    """What comes first and is to be seen: a line, and others that say why."""

    kind: ClassVar = "verdict"
    tone: Literal["good", "unsure", "bad"]
    head: str
    lines: Sequence[str] = ()


@final
@dataclass(frozen=True)
class Picture:
    """An image."""

    kind: ClassVar = "picture"
    png: bytes
    about: str
    """What is on it, for who cannot see it."""
    width: int = 96
    """In pixels of the page."""

    @property
    def address(self) -> str:
        """The image itself, as an address."""
        return "data:image/png;base64," + base64.b64encode(self.png).decode()


@final
@dataclass(frozen=True)
class Link:
    """Text that leads to a section of the page."""

    kind: ClassVar = "link"
    text: str
    anchor: str


Cell = str | Picture | Link


@final
@dataclass(frozen=True)
class Gallery:
    """Images side by side, each with lines under it."""

    kind: ClassVar = "gallery"
    pictures: Sequence[tuple[Picture, Sequence[str]]]


@final
@dataclass(frozen=True)
class Table:
    """Rows under titles."""

    kind: ClassVar = "table"
    titles: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    numbers: frozenset[int] = frozenset()
    """The columns that stand at the right."""
    caption: str = ""


@final
@dataclass(frozen=True)
class Figure:
    """A figure of plotly."""

    kind: ClassVar = "figure"
    figure: Plotly
    height: int = 300
    """In pixels."""

    def markup(self, name: str) -> Markup:
        """The figure, for a page that has plotly in it."""
        size = {"default_width": "100%", "default_height": f"{self.height}px"}
        options = {"full_html": False, "include_plotlyjs": False, "config": CONFIG}
        return Markup(plotly.io.to_html(self.figure, div_id=name, **size, **options))


Part = Words | Verdict | Picture | Gallery | Table | Figure


@final
@dataclass(frozen=True)
class Section:
    """A title and what stands under it."""

    title: str
    parts: Sequence[Part]
    anchor: str = ""
    """By which links find it: letters, numbers and hyphens."""
    level: Literal[2, 3] = 2


@final
@dataclass(frozen=True)
class Page:
    """A page."""

    title: str
    sections: Sequence[Section]
    about: Sequence[str] = ()
    """Lines under the title."""
    top: Sequence[Part] = field(default=())
    """What stands before the first section."""

    def html(self) -> str:
        """The page. It has plotly in it if it has figures."""
        parts = [*self.top, *(part for section in self.sections for part in section.parts)]
        figures = any(isinstance(part, Figure) for part in parts)
        return _template().render(page=self, plotly=_plotly() if figures else "")


def plain(text: str) -> str:
    """A name from the data as plotly shows it: what looks like markup is none."""
    return html.escape(text, quote=False)


@cache
def _template() -> jinja2.Template:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("hindgrad.apps.report"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("page.html")


@cache
def _plotly() -> Markup:
    """Plotly itself."""
    from plotly.offline import get_plotlyjs

    return Markup(get_plotlyjs())


def layout(**more: Any) -> dict[str, Any]:
    """What all figures have in common."""
    return {
        "template": "none",
        "font": {"family": "system-ui, sans-serif", "size": 13, "color": "#22303c"},
        "margin": {"l": 60, "r": 20, "t": 34, "b": 44},
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "legend": {"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0},
        "xaxis": AXIS,
        "yaxis": AXIS,
        **more,
    }
