"""One way to read any document: what it holds, and whether it has changed.

A document's images come as an iterator, each already validated and stored; the document as a whole is read only
when the iterator ends without an error. Rows should be written then, not before.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

from upath import UPath

from embedding_assets.errors import DocumentError, InfrastructureError, TransientError
from embedding_assets.ingest.folder import folder_images, list_images
from embedding_assets.ingest.image_file import read_file
from embedding_assets.ingest.image_store import ImageStore, local_path
from embedding_assets.ingest.landing import LandingDocument, SourceKind
from embedding_assets.ingest.limits import IngestLimits
from embedding_assets.ingest.pdf import WORKER_COMMAND, PdfReader
from embedding_assets.ingest.pdf_document import pdf_images
from embedding_assets.ingest.posted import PostedAccess, PostedImage, resolve_posted_path
from embedding_assets.ingest.posted_document import posted_images
from embedding_assets.ingest.records import FoundImage
from embedding_assets.ingest.verdicts import found_image
from embedding_assets.keys import DocumentKey

_CHUNK = 1 << 20


@dataclass(frozen=True)
class PostedDocument:
    """A document that was posted as a list of images.

    Attributes:
        key: its workspace and document id.
        material_images: the entries as they came; see `PostedImage`.
        title: what people call it; the document id where empty.
    """

    key: DocumentKey
    material_images: Sequence[Any]
    title: str = ""
    kind: SourceKind = field(default=SourceKind.POSTED, init=False)


@dataclass
class DocumentContent:
    """What a document holds. Use it in a `with` block, or call `close`: a PDF has a worker process open.

    Attributes:
        content_hash: as `document_fingerprint`.
        title: the PDF's title, or the file's name without its suffix.
        page_count: pages of a PDF; None for other documents.
        images: the images in reading order, once. Raises DocumentError where the rest can't be read.
    """

    content_hash: str
    title: str
    page_count: int | None
    images: Iterator[FoundImage]
    _stack: ExitStack = field(default_factory=ExitStack, repr=False)

    def close(self) -> None:
        """Frees what reading needs; the images that were not taken are gone."""
        self._stack.close()

    def __enter__(self) -> DocumentContent:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def document_fingerprint(
    document: LandingDocument | PostedDocument, limits: IngestLimits, access: PostedAccess | None = None
) -> str:
    """Whether a document has changed, without reading its images: SHA-256 in hexadecimal.

    Over a file's bytes; a folder's sorted names and file hashes; a posted list's canonical JSON, with size and
    time of the files that its paths name. And always over the limits that decide what a document yields.

    Args:
        document: from the landing folder, or posted.
        limits: as for reading.
        access: for posted documents; without it, posted paths count by name only.

    Raises:
        DocumentError: it is not there (any more), or a folder holds no image.
        TransientError: it can't be read at the moment.
    """
    digest = hashlib.sha256()
    if isinstance(document, PostedDocument):
        digest.update(_posted_signature(document, access).encode())
        digest.update(f"\n{limits.fingerprint}".encode())
    elif document.kind is SourceKind.FOLDER:
        with _reading(document):
            for entry in list_images(document.uri):
                name = entry.name.encode("utf-8", "surrogateescape")
                file_hash = b"refused" if entry.refusal else _file_hash(entry.path)
                digest.update(b"%d:%s=%s\n" % (len(name), name, file_hash))
        digest.update(limits.fingerprint.encode())
    else:
        with _reading(document):
            digest.update(_file_hash(_path(document.uri)))
        is_pdf = document.kind is SourceKind.PDF
        digest.update((limits.pdf_fingerprint if is_pdf else limits.fingerprint).encode())
    return digest.hexdigest()


def read_document(
    document: LandingDocument | PostedDocument,
    store: ImageStore,
    limits: IngestLimits,
    access: PostedAccess | None = None,
    *,
    content_hash: str | None = None,
    pdf_command: Sequence[str] = WORKER_COMMAND,
) -> DocumentContent:
    """Opens a document; its images are read, validated and stored as they are taken from `images`.

    Args:
        document: from the landing folder, or posted.
        store: where sound images go.
        limits: on images and PDFs.
        access: from where posted images may be read; required for posted documents.
        content_hash: the document's fingerprint, where the caller has just computed it.
        pdf_command: the PDF worker; see `PdfReader`.

    Raises:
        DocumentError: it is not there, or can't be read at all.
        TransientError: it can't be read at the moment.
    """
    if isinstance(document, LandingDocument) and document.kind is SourceKind.PDF:
        return _open_pdf(document, store, limits, content_hash, pdf_command)
    fingerprint = content_hash or document_fingerprint(document, limits, access)
    if isinstance(document, PostedDocument):
        if access is None:
            raise ValueError("a posted document can't be read without `access`")
        title = document.title or document.key.document_id
        images = posted_images(document.key, document.material_images, store, limits, access)
        return DocumentContent(fingerprint, title, None, images)
    path = _path(document.uri)
    if document.kind is SourceKind.FOLDER:
        return DocumentContent(fingerprint, path.name, None, folder_images(document.uri, store, limits))
    return DocumentContent(fingerprint, path.stem, None, _single_image(path, store, limits))


def _open_pdf(
    document: LandingDocument,
    store: ImageStore,
    limits: IngestLimits,
    content_hash: str | None,
    command: Sequence[str],
) -> DocumentContent:
    path = _path(document.uri)
    stack = ExitStack()
    try:
        with _reading(document):
            check_unchanged = _unchanged_check(path)
            fingerprint = content_hash or document_fingerprint(document, limits)
            local = stack.enter_context(_local_copy(path))
        reader = stack.enter_context(PdfReader(local, limits, command=command))
    except BaseException:
        stack.close()
        raise
    images = pdf_images(reader, store, limits, check_unchanged)
    return DocumentContent(fingerprint, reader.title or path.stem, reader.page_count, images, stack)


def _single_image(path: Path | UPath, store: ImageStore, limits: IngestLimits) -> Iterator[FoundImage]:
    yield found_image(0, path.name, lambda: read_file(path, limits), store, limits)


def _path(uri: str) -> Path | UPath:
    return local_path(uri) or UPath(uri)


def _file_hash(path: Path | UPath) -> bytes:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest().encode()


@contextmanager
def _reading(document: LandingDocument) -> Iterator[None]:
    """Names the document in errors of the file system."""
    try:
        yield
    except (DocumentError, TransientError):
        raise
    except FileNotFoundError as error:
        raise DocumentError(
            f"{document.uri} is not there (any more)", hint="put it back, or remove the document"
        ) from error
    except PermissionError as error:
        raise DocumentError(
            f"{document.uri} can't be read: {error.strerror or error}", hint="check the file's permissions"
        ) from error
    except Exception as error:  # fsspec lets its clients' own errors through, not only OSError
        raise TransientError(f"{document.uri} can't be read: {error}") from error


@contextmanager
def _local_copy(path: Path | UPath) -> Iterator[Path]:
    """A local file with the document's bytes: itself, or a copy that goes away again."""
    if isinstance(path, Path):
        yield path
        return
    with tempfile.TemporaryDirectory(prefix="embedding-assets-") as folder:
        copy = Path(folder) / "document.pdf"
        try:
            with path.open("rb") as source, copy.open("wb") as target:
                while chunk := source.read(_CHUNK):
                    target.write(chunk)
        except OSError as error:
            raise InfrastructureError(f"{path} can't be copied to {folder}: {error}") from error
        yield copy


def _unchanged_check(path: Path | UPath) -> Callable[[], None]:
    """A function that raises TransientError if the file was written since: a copy still going on, say."""

    def version() -> tuple[Any, ...]:
        status = path.stat()
        return status.st_size, getattr(status, "st_mtime_ns", 0)

    before = version()

    def check() -> None:
        if version() != before:
            raise TransientError(
                f"{path} changed while it was read", hint="it is read again on the next ingest"
            )

    return check


def _posted_signature(document: PostedDocument, access: PostedAccess | None) -> str:
    files = []
    for entry in document.material_images if access is not None else ():
        assert access is not None
        try:
            posted = PostedImage.read(entry)
            path = resolve_posted_path(posted.path, access.roots_for(document.key)) if posted.path else None
            status = path.stat() if path is not None else None
        except Exception:  # noqa: BLE001 (whatever is wrong with it, reading it says so; here it has no time)
            status = None
        files.append([status.st_size, getattr(status, "st_mtime_ns", 0)] if status else None)
    content = {"images": list(document.material_images), "title": document.title, "files": files}
    return json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=True, default=str)
