"""Posted lists of images: what an entry may say, and how its bytes are had.

An entry is a dict with `path` or `url`, and what the poster knows about the image. A bad entry never sinks the
list: it becomes a rejected image with its place in the list and the reason.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from pydantic import AliasChoices, BaseModel, ConfigDict, Field, ValidationError, model_validator
from upath import UPath

from embedding_assets.errors import ImageRejected
from embedding_assets.ingest.fetch import FetchPolicy, fetch_image
from embedding_assets.ingest.image_file import read_file
from embedding_assets.ingest.image_store import local_path
from embedding_assets.ingest.limits import IngestLimits
from embedding_assets.keys import DocumentKey
from embedding_assets.settings import Settings

MAX_PAGE_NUMBER = 2**31 - 1
"""What the column takes."""


class PostedImage(BaseModel):
    """One entry of `material_images`. Exactly one of `path` and `url` is given; everything else is optional.

    Attributes:
        path: a local path or URL of a file under an allowed root; a relative path starts at the workspace's landing
            folder.
        url: http or https.
        page_number: from 1.
        caption: as the poster knows it.
        width, height: pixels as posted; what is stored is measured, these are only checked to be numbers.
        bbox: left, bottom, right, top, in whatever unit the poster uses.
        quality_score: 0 to 1.
        extra: every further key, as it came.
    """

    model_config = ConfigDict(extra="allow", frozen=True)

    path: str | None = Field(
        None, validation_alias=AliasChoices("path", "image_path", "file_path", "local_path"), max_length=4096
    )
    url: str | None = Field(None, validation_alias=AliasChoices("url", "image_url"), max_length=8192)
    page_number: int | None = Field(
        None, ge=1, le=MAX_PAGE_NUMBER, validation_alias=AliasChoices("page_number", "page")
    )
    caption: str | None = None
    width: float | None = Field(None, ge=0)
    height: float | None = Field(None, ge=0)
    bbox: tuple[float, float, float, float] | None = None
    quality_score: float | None = Field(None, ge=0, le=1)

    @model_validator(mode="before")
    @classmethod
    def _without_empty(cls, values: Any) -> Any:
        """Empty strings and nulls count as not given; a path that is an http URL counts as `url`."""
        if not isinstance(values, Mapping):
            raise ValueError(f"expected a dict with path or url, got {type(values).__name__}")
        given = {str(key): value for key, value in values.items() if value is not None and value != ""}
        for name in ("path", "image_path", "file_path"):
            value = given.get(name)
            if isinstance(value, str) and value.lower().startswith(("http://", "https://")):
                given.setdefault("url", given.pop(name))
        return given

    @model_validator(mode="after")
    def _one_source(self) -> PostedImage:
        if (self.path is None) == (self.url is None):
            both = "both" if self.path else "neither"
            raise ValueError(f"expected exactly one of path and url, got {both}")
        if self.bbox is not None and not all(map(math.isfinite, self.bbox)):
            raise ValueError("bbox: expected four finite numbers")
        return self

    @property
    def extra(self) -> dict[str, Any]:
        """Keys that this model does not know, as they came."""
        return dict(self.model_extra or {})

    @property
    def reference(self) -> str:
        """Where the image is, for people: the path, or the URL without its query (which may hold a signature)."""
        return self.path or str(self.url).split("?", 1)[0].split("#", 1)[0]

    @classmethod
    def read(cls, entry: Any) -> PostedImage:
        """Reads one entry; raises ImageRejected with every problem in it, by field."""
        try:
            return cls.model_validate(entry)
        except ValidationError as error:
            problems = []
            for item in error.errors(include_input=False, include_url=False):
                name = ".".join(str(part) for part in item["loc"])
                message = item["msg"].removeprefix("Value error, ")
                problems.append(f"{name}: {message}" if name else message)
            raise ImageRejected(f"bad entry: {'; '.join(problems)[:500]}") from None


@dataclass(frozen=True)
class PostedAccess:
    """From where posted images may be read.

    Attributes:
        landing_root: paths may lie in the document's own workspace folder under it.
        image_store_root: paths may lie in the image store.
        allowed_roots: further folders or URLs that paths may lie in (setting allowed_roots).
        fetch: what may be fetched by URL.
    """

    landing_root: str
    image_store_root: str
    allowed_roots: Sequence[str] = ()
    fetch: FetchPolicy = field(default_factory=FetchPolicy)

    @classmethod
    def from_settings(cls, settings: Settings) -> PostedAccess:
        """The access that the settings give."""
        return cls(
            settings.landing,
            settings.image_store,
            tuple(settings.allowed_roots),
            FetchPolicy.from_settings(settings),
        )

    def roots_for(self, key: DocumentKey) -> list[str]:
        """The roots for a document: of the landing folder only its own workspace's part."""
        workspace = f"{self.landing_root.rstrip('/')}/{key.workspace_id}"
        return [workspace, self.image_store_root, *self.allowed_roots]


def read_posted_bytes(
    posted: PostedImage, key: DocumentKey, access: PostedAccess, limits: IngestLimits
) -> bytes:
    """The bytes of a posted image.

    Raises:
        ImageRejected: not allowed, not there, no file, too large.
        TransientError, ThrottledError: can't be had at the moment.
    """
    if posted.url is not None:
        return fetch_image(posted.url, access.fetch, limits.max_image_bytes)
    path = resolve_posted_path(str(posted.path), access.roots_for(key))
    return read_file(path, limits)


def resolve_posted_path(path: str, roots: Sequence[str]) -> Path | UPath:
    """The file that a posted path names, all symlinks resolved.

    Args:
        path: local path or URL; a relative one starts at the first root.
        roots: folders and URLs, in one of which the file must lie.

    Raises:
        ImageRejected: it lies in none of the roots, or is not there.
    """
    if "\x00" in path:
        raise ImageRejected("the path holds a zero byte")
    if "://" in path and not path.startswith("file://"):
        return _remote_path(path, roots)
    local = Path(unquote(path.removeprefix("file://")) if path.startswith("file://") else path)
    local_roots = [found for found in map(local_path, roots) if found is not None]
    if not local.is_absolute():
        if local_path(roots[0]) is None:
            return _remote_path(f"{roots[0].rstrip('/')}/{path}", roots)
        local = local_roots[0] / local
    # Decided without looking at the file first: whether a file exists outside the roots is nobody's business.
    try:
        resolved = local.resolve()
    except (OSError, RuntimeError) as error:
        raise ImageRejected(f"{path[:200]} can't be resolved: {error}") from None
    if not any(resolved.is_relative_to(root.resolve()) for root in local_roots):
        raise _outside(path)
    return resolved


def _remote_path(path: str, roots: Sequence[str]) -> UPath:
    if ".." in path.split("/") or not any(
        "://" in root and path.startswith(root.rstrip("/") + "/") for root in roots
    ):
        raise _outside(path)
    return UPath(path)


def _outside(path: str) -> ImageRejected:
    return ImageRejected(
        f"{path[:200]} lies outside the allowed folders (the workspace's landing folder, the image store, and "
        "the setting allowed_roots)",
        hint="move the file into the workspace's landing folder, or add its folder to allowed_roots",
    )
