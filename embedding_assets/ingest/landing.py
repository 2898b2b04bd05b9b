"""The landing folder: which documents lie in it, and where.

    <landing>/<workspace_id>/oak-series.pdf        a PDF
    <landing>/<workspace_id>/swatches/             a folder of images, at any depth
    <landing>/<workspace_id>/lobby.jpg             one image

A document's id comes from its name (`keys.document_id_for_name`): renaming a file makes another document.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from upath import UPath

from embedding_assets.errors import DocumentError, TransientError
from embedding_assets.ingest.image_store import local_path
from embedding_assets.keys import DocumentKey, InvalidDocumentKey, document_id_for_name

logger = logging.getLogger(__name__)

IMAGE_SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".tif", ".tiff", ".gif", ".bmp", ".avif"}
)
"""Files with these suffixes are taken for images. What they really hold is decided by their first bytes."""

UNFINISHED_SUFFIXES = (".part", ".tmp", ".crdownload", ".partial", ".download", "~")
"""Names of files that something is still writing."""

_REPORTED_LIMIT = 10_000
_reported: set[str] = set()


class SourceKind(str, Enum):
    """What a document is made of."""

    PDF = "pdf"
    FOLDER = "folder"
    IMAGE = "image"
    POSTED = "posted"


@dataclass(frozen=True)
class LandingDocument:
    """A document in the landing folder.

    Attributes:
        key: its workspace and document id.
        kind: PDF, folder of images, or one image.
        uri: the absolute path of the file or folder, or its URL.
    """

    key: DocumentKey
    kind: SourceKind
    uri: str


def discover(landing_root: str, workspace_id: str | None = None) -> Iterator[LandingDocument]:
    """The documents in the landing folder, sorted by workspace and name.

    Hidden files and unfinished names are left out silently. Anything else that is no document (another file type,
    a folder whose name is no workspace id, a symlink out of the landing folder) is left out with a warning in the
    log, once for each path and process.

    Args:
        landing_root: folder or URL.
        workspace_id: only this workspace.

    Raises:
        TransientError: the landing folder exists but can't be listed. (One that does not exist holds nothing.)
    """
    root = _root(landing_root)
    workspaces = [root / workspace_id] if workspace_id is not None else _children(root)
    for workspace in workspaces:
        if not is_visible(workspace.name):
            continue
        if not workspace.is_dir():
            if workspace_id is None:
                report_once(
                    workspace,
                    "it lies beside the workspace folders; expected <landing>/<workspace_id>/<file>",
                )
            continue
        for entry in _children(workspace):
            document = _document(root, workspace.name, entry)
            if document is not None:
                yield document


def locate(landing_root: str, key: DocumentKey) -> LandingDocument:
    """Finds one document in the landing folder.

    Raises:
        DocumentError: it is not there, or it is nothing that can be read.
        TransientError: the landing folder can't be listed.
    """
    root = _root(landing_root)
    direct = root / key.workspace_id / key.document_id
    if is_visible(direct.name) and direct.exists():
        found = _document(root, key.workspace_id, direct)
        if found is not None and found.key == key:
            return found
    for document in discover(landing_root, key.workspace_id):
        if document.key == key:
            return document
    raise DocumentError(
        f"document {key} is not in the landing folder {landing_root}, or is nothing that can be read",
        hint=f"put the PDF, image or folder of images into {landing_root.rstrip('/')}/{key.workspace_id}/, "
        "or look for a warning with its name in the log",
    )


def is_visible(name: str) -> bool:
    """Whether a file or folder of this name is to be read: neither hidden nor still being written."""
    return not name.startswith(".") and not name.lower().endswith(UNFINISHED_SUFFIXES)


def is_within(path: Path, root: Path) -> bool:
    """Whether a local path, all symlinks resolved, lies in `root` or is it."""
    try:
        return path.resolve(strict=True).is_relative_to(root.resolve())
    except (OSError, RuntimeError):  # RuntimeError: a loop of symlinks, before Python 3.13
        return False


def natural_order(name: str) -> tuple[tuple[int, int, str], ...]:
    """Sort key that puts "oak 2.jpg" before "oak 10.jpg"."""
    parts = re.split(r"(\d+)", name)
    numbered = [(0, int(part), part) if part.isdecimal() else (1, 0, part.lower()) for part in parts]
    return (*numbered, (2, 0, name))


def kind_of(name: str, *, is_folder: bool) -> SourceKind | None:
    """What kind of document a name stands for; None where it is none."""
    if is_folder:
        return SourceKind.FOLDER
    suffix = Path(name).suffix.lower()
    if suffix == ".pdf":
        return SourceKind.PDF
    return SourceKind.IMAGE if suffix in IMAGE_SUFFIXES else None


def _root(landing_root: str) -> Path | UPath:
    local = local_path(landing_root)
    return local.absolute() if local is not None else UPath(landing_root)


def _children(folder: Path | UPath) -> list[Path | UPath]:
    try:
        return sorted(folder.iterdir(), key=lambda path: path.name)
    except (FileNotFoundError, NotADirectoryError):
        return []
    except Exception as error:  # fsspec lets its clients' own errors through
        raise TransientError(
            f"the folder {folder} can't be listed: {error}",
            hint="check its permissions and that it is mounted",
        ) from error


def _document(root: Path | UPath, workspace_id: str, entry: Path | UPath) -> LandingDocument | None:
    if not is_visible(entry.name):
        return None
    if isinstance(root, Path) and isinstance(entry, Path) and not is_within(entry, root):
        report_once(entry, "it is a symlink that leads out of the landing folder, or nowhere")
        return None
    is_folder = entry.is_dir()
    kind = kind_of(entry.name, is_folder=is_folder)
    if kind is None or not (is_folder or entry.is_file()):
        report_once(
            entry, f"expected a PDF, a folder of images, or an image ({', '.join(sorted(IMAGE_SUFFIXES))})"
        )
        return None
    try:
        key = DocumentKey(workspace_id, document_id_for_name(entry.name))
    except InvalidDocumentKey as error:
        report_once(entry, error.message)
        return None
    return LandingDocument(key, kind, str(entry))


def report_once(path: Path | UPath | str, reason: str) -> None:
    """Warns once for each path: the landing folder is listed again every minute."""
    text = str(path)
    if text not in _reported:
        if len(_reported) >= _REPORTED_LIMIT:
            _reported.clear()
        _reported.add(text)
        logger.warning("not ingested: %s: %s", text, reason)
