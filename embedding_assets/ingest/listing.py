"""One listing of the whole landing folder, with what tells a changed document from an unchanged one.

It reads no file: a document's fingerprint is made of its files' names, sizes and times (or ETags, where the storage
has them). 100,000 documents on a local disk take about a second; a bucket is listed by one recursive call. What
belongs here: listing. What does not: whether a change is worth a run (`pipeline.discovery`).
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from upath import UPath

from embedding_assets.errors import TransientError
from embedding_assets.ingest.folder import MAX_DEPTH
from embedding_assets.ingest.image_store import local_path
from embedding_assets.ingest.landing import (
    IMAGE_SUFFIXES,
    LandingDocument,
    SourceKind,
    is_visible,
    is_within,
    kind_of,
    report_once,
)
from embedding_assets.keys import DocumentKey, InvalidDocumentKey, document_id_for_name


@dataclass(frozen=True)
class ListedDocument:
    """A document as the listing shows it.

    Attributes:
        document: where it is.
        fingerprint: changes with the name, size or time of any of its files.
        empty: a folder without an image: somebody is about to fill it, or has emptied it.
    """

    document: LandingDocument
    fingerprint: str
    empty: bool = False


@dataclass(frozen=True)
class _File:
    """`inner` is the path inside a folder document, None for a file that is a document by itself."""

    workspace_id: str
    entry: str
    inner: str | None
    size: int
    stamp: str


def list_landing(landing_root: str) -> dict[DocumentKey, ListedDocument]:
    """The documents in the landing folder, by key, in order of workspace and name.

    Leaves out what `landing.discover` leaves out. A landing folder that does not exist holds nothing.

    Args:
        landing_root: folder or URL.

    Raises:
        TransientError: a folder can't be listed.
    """
    local = local_path(landing_root)
    if local is not None:
        root = str(local.absolute())
        files = _local_files(local.absolute())
    else:
        root = landing_root.rstrip("/")
        files = _remote_files(landing_root)
    listed: dict[DocumentKey, ListedDocument] = {}
    for (workspace_id, entry), members in sorted(_grouped(files).items()):
        found = _document(root, workspace_id, entry, members)
        if found is not None:
            listed[found.document.key] = found
    return listed


def _grouped(files: Iterable[_File]) -> dict[tuple[str, str], list[_File]]:
    groups: dict[tuple[str, str], list[_File]] = {}
    for file in files:
        groups.setdefault((file.workspace_id, file.entry), []).append(file)
    return groups


def _document(root: str, workspace_id: str, entry: str, members: list[_File]) -> ListedDocument | None:
    is_folder = members[0].inner is not None
    kind = kind_of(entry, is_folder=is_folder)
    uri = f"{root}/{workspace_id}/{entry}"
    if kind is None:
        report_once(
            uri, f"expected a PDF, a folder of images, or an image ({', '.join(sorted(IMAGE_SUFFIXES))})"
        )
        return None
    try:
        key = DocumentKey(workspace_id, document_id_for_name(entry))
    except InvalidDocumentKey as error:
        report_once(uri, error.message)
        return None
    document = LandingDocument(key, kind, uri)
    if kind is not SourceKind.FOLDER:
        return ListedDocument(document, f"{members[0].size}:{members[0].stamp}")
    images = sorted((file for file in members if file.stamp), key=lambda file: file.inner or "")
    digest = hashlib.sha256()
    for file in images:
        digest.update(f"{file.inner}\0{file.size}\0{file.stamp}\n".encode("utf-8", "surrogateescape"))
    return ListedDocument(document, f"{len(images)}:{digest.hexdigest()[:32]}", empty=not images)


# -- local folders ---------------------------------------------------------------------------------------------


def _local_files(root: Path) -> Iterator[_File]:
    """`os.scandir` by hand: fsspec's `find` takes five times as long on a local disk."""
    for workspace in _scan(root):
        if not workspace.is_dir():
            report_once(
                workspace.path,
                "it lies beside the workspace folders; expected <landing>/<workspace_id>/<file>",
            )
            continue
        for entry in _scan(Path(workspace.path)):
            if entry.is_symlink() and not is_within(Path(entry.path), root):
                report_once(entry.path, "it is a symlink that leads out of the landing folder, or nowhere")
                continue
            if entry.is_dir():
                yield _File(workspace.name, entry.name, "", 0, "")  # the folder itself, even if it is empty
                yield from _folder_files(workspace.name, entry.name, Path(entry.path), "", 0)
            elif entry.is_file():
                yield from _local_file(workspace.name, entry.name, None, entry)


def _folder_files(workspace_id: str, name: str, folder: Path, prefix: str, depth: int) -> Iterator[_File]:
    for entry in _scan(folder):
        if entry.is_dir():
            if not entry.is_symlink() and depth < MAX_DEPTH:  # deeper, reading it says so
                inner = f"{prefix}{entry.name}/"
                yield from _folder_files(workspace_id, name, Path(entry.path), inner, depth + 1)
        elif Path(entry.name).suffix.lower() in IMAGE_SUFFIXES:
            yield from _local_file(workspace_id, name, f"{prefix}{entry.name}", entry)


def _local_file(workspace_id: str, name: str, inner: str | None, entry: os.DirEntry[str]) -> Iterator[_File]:
    try:
        status = entry.stat()
    except OSError:  # gone since it was listed, or a symlink that leads nowhere
        return
    yield _File(workspace_id, name, inner, status.st_size, str(status.st_mtime_ns))


def _scan(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return [entry for entry in entries if is_visible(entry.name)]
    except (FileNotFoundError, NotADirectoryError):  # removed since it was listed, or not there yet
        return []
    except OSError as error:
        raise TransientError(
            f"the folder {folder} can't be listed: {error}",
            hint="check its permissions and that it is mounted",
        ) from error


# -- everything else -------------------------------------------------------------------------------------------


def _remote_files(landing_root: str) -> Iterator[_File]:
    root = UPath(landing_root)
    prefix = str(root.path).strip("/")
    try:
        found: dict[str, dict[str, Any]] = root.fs.find(root.path, detail=True)
    except FileNotFoundError:
        return
    except Exception as error:  # fsspec lets its clients' own errors through
        raise TransientError(
            f"{landing_root} can't be listed: {error}", hint="check its address and permissions"
        ) from error
    for path, info in found.items():
        parts = path.strip("/").removeprefix(prefix).strip("/").split("/")
        if len(parts) < 2 or not all(is_visible(part) for part in parts):
            continue
        inner = "/".join(parts[2:]) or None
        if inner is not None and Path(inner).suffix.lower() not in IMAGE_SUFFIXES:
            continue
        yield _File(parts[0], parts[1], inner, int(info.get("size") or 0), _stamp(info))


def _stamp(info: dict[str, Any]) -> str:
    """What changes when an object is written again: each storage calls it by its own name."""
    for name in ("ETag", "etag", "md5Hash", "LastModified", "mtime", "updated", "last_modified", "created"):
        if info.get(name):
            return str(info[name])
    return "-"
