"""A folder of images: found at any depth, in natural order of their relative names."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from upath import UPath

from embedding_assets.errors import DocumentError, ImageRejected
from embedding_assets.ingest.image_file import read_file
from embedding_assets.ingest.image_store import ImageStore, local_path
from embedding_assets.ingest.landing import IMAGE_SUFFIXES, is_visible, is_within, natural_order
from embedding_assets.ingest.limits import IngestLimits
from embedding_assets.ingest.records import FoundImage
from embedding_assets.ingest.verdicts import found_image

logger = logging.getLogger(__name__)

MAX_DEPTH = 32
"""Folders within folders; more is a mistake or a trap."""


@dataclass(frozen=True)
class FolderEntry:
    """A file that is taken for an image by its suffix.

    Attributes:
        name: relative to the folder, with "/".
        path: where it is.
        refusal: why it is not read; None where it may be.
    """

    name: str
    path: Path | UPath
    refusal: str | None = None


def list_images(uri: str) -> list[FolderEntry]:
    """The image files of a folder document, by their suffixes.

    Hidden files and unfinished names are left out; other files are counted in the log. Folders behind symlinks are
    not entered; an image file behind a symlink is read only where it lies in the folder's own parent (the
    workspace).

    Raises:
        DocumentError: the folder holds no image file, which is more likely a mishap than a wish.
    """
    root: Path | UPath = local_path(uri) or UPath(uri)
    entries: list[FolderEntry] = []
    ignored: list[str] = []
    _walk(root, root, "", entries, ignored)
    if ignored:
        shown = ", ".join(sorted(ignored)[:5])
        logger.info("%s: %d files are no images by their suffix: %s", uri, len(ignored), shown)
    if not entries:
        raise DocumentError(
            f"the folder {uri} holds no image file ({', '.join(sorted(IMAGE_SUFFIXES))})",
            hint="add images, or remove the folder to remove the document",
        )
    return sorted(entries, key=lambda entry: [natural_order(part) for part in entry.name.split("/")])


def folder_images(uri: str, store: ImageStore, limits: IngestLimits) -> Iterator[FoundImage]:
    """Reads the images of a folder document, one at a time.

    Raises:
        DocumentError: the folder holds no image file.
    """
    for index, entry in enumerate(list_images(uri)):
        yield _found(index, entry, store, limits)


def _found(index: int, entry: FolderEntry, store: ImageStore, limits: IngestLimits) -> FoundImage:
    def read() -> bytes:
        if entry.refusal:
            raise ImageRejected(entry.refusal)
        return read_file(entry.path, limits)

    return found_image(index, entry.name, read, store, limits)


def _walk(
    root: Path | UPath, folder: Path | UPath, prefix: str, entries: list[FolderEntry], ignored: list[str]
) -> None:
    if prefix.count("/") > MAX_DEPTH:
        raise DocumentError(f"the folder {root} has folders more than {MAX_DEPTH} deep")
    children: list[Path | UPath] = list(folder.iterdir())
    for path in sorted(children, key=lambda path: path.name):
        name = f"{prefix}{path.name}"
        if not is_visible(path.name):
            continue
        if path.is_dir():
            if isinstance(path, Path) and path.is_symlink():
                logger.warning("%s: the folder %s is a symlink and is not read", root, name)
            else:
                _walk(root, path, f"{name}/", entries, ignored)
        elif Path(path.name).suffix.lower() in IMAGE_SUFFIXES:
            refusal = None
            if isinstance(path, Path) and isinstance(root, Path) and not is_within(path, root.parent):
                refusal = "a symlink that leads out of the workspace's folder, or nowhere"
            elif not path.is_file():
                refusal = "no regular file"
            entries.append(FolderEntry(name, path, refusal))
        else:
            ignored.append(name)
