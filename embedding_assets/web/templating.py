"""How templates become pages: one environment that escapes everything, and the frame that every page has."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from functools import lru_cache
from typing import Any
from urllib.parse import quote, urlencode

from jinja2 import Environment, PackageLoader, StrictUndefined
from starlette.responses import HTMLResponse

from embedding_assets.web import labels

THUMBNAIL = 512
"""Longer side in pixels of a thumbnail in a grid: twice what it is shown at, for dense screens. One of
`ingest.thumbnail.SIDES`."""


@dataclass(frozen=True)
class Frame:
    """What every page needs to know.

    Attributes:
        workspace: the one that the page shows; "" where nobody is logged in.
        workspaces: all that may be chosen.
        named: whether links have to name the workspace.
        can_log_out: whether a cookie holds a key.
    """

    workspace: str = ""
    workspaces: tuple[str, ...] = ()
    named: bool = False
    can_log_out: bool = False

    def link(self, path: str, **query: Any) -> str:
        """A path of this server with its query; empty values are left out, the workspace is added where needed."""
        given = {name: value for name, value in query.items() if value not in (None, "")}
        if self.named:
            given["workspace_id"] = self.workspace
        return quote(path) + (f"?{urlencode(given)}" if given else "")

    def thumbnail(self, image_id: uuid.UUID, side: int = THUMBNAIL) -> str:
        """Where an image's thumbnail is, its longer side about `side` pixels."""
        return self.link(f"/api/images/{image_id}/thumbnail", side=side)


@lru_cache(maxsize=1)
def environment() -> Environment:
    """The templates. A name that a template uses and nobody gave is an error, not an empty place."""
    made = Environment(
        loader=PackageLoader("embedding_assets.web"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
    )
    made.filters |= {
        "count": labels.count,
        "moment": labels.moment,
        "percent": labels.percent,
        "score": labels.score,
        "size": labels.size,
    }
    return made


def page(template: str, frame: Frame, *, status: int = 200, **values: Any) -> HTMLResponse:
    """A rendered page.

    Args:
        template: file name in templates/.
        values: what it shows.
    """
    values.setdefault("section", "")
    html = environment().get_template(template).render(frame=frame, **values)
    return HTMLResponse(html, status)
