"""The page itself, by Jinja2: everything that is put in is escaped, and nothing that is missing is passed over."""

from __future__ import annotations

from importlib import resources
from importlib.resources.abc import Traversable

from jinja2 import Environment, FunctionLoader, StrictUndefined
from msgspec import Struct

from mirror.gallery.records import Counts

_STYLES = ("theme.css", "gallery.css", "detail.css")
_FIRST = "theme.js"
_SCRIPTS = ("dom.js", "format.js", "data.js", "filter.js", "layout.js", "cards.js", "grid.js", "facts.js", "detail.js")
_LAST = "app.js"
_ICON = "icon.svg"


class Page(Struct, frozen=True, kw_only=True):
    """What stands in the page before any data is read."""

    title: str
    generation: str
    written_at: str
    counts: Counts


def assets() -> dict[str, bytes]:
    """The files that the page loads, by their names."""
    folder = _package() / "assets"
    return {name: (folder / name).read_bytes() for name in (*_STYLES, _FIRST, *_SCRIPTS, _LAST, _ICON)}


def render(page: Page) -> bytes:
    """The page's bytes."""
    environment = Environment(
        loader=FunctionLoader(lambda name: (_package() / "templates" / name).read_text("utf-8")),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    template = environment.get_template("index.html.j2")
    text = template.render(page=page, styles=_STYLES, first=_FIRST, scripts=(*_SCRIPTS, _LAST), icon=_ICON)
    return text.encode("utf-8", "replace")


def _package() -> Traversable:
    return resources.files("mirror.gallery")
