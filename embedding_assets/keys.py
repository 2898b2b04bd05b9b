"""The grammar of document keys, and the ids derived from them.

    key          = workspace_id "/" document_id        (also the Dagster partition key)
    workspace_id = [A-Za-z0-9._-]{1,128}
    document_id  = [A-Za-z0-9._-]{1,128}

Neither part is "." or "..", and no part holds "...": a part can then be a folder's name, and Dagster keeps
"..." for partition ranges.
"""

from __future__ import annotations

import hashlib
import re
import uuid
from dataclasses import dataclass

from embedding_assets.errors import PermanentError

_PART = re.compile(r"[A-Za-z0-9._-]{1,128}")
_UNSAFE = re.compile(r"[^A-Za-z0-9_-]+")
_DOTTED_UNSAFE = re.compile(r"[^A-Za-z0-9._-]+")

IMAGE_NAMESPACE = uuid.UUID("6f2c8c0e-0a57-5f0e-9d0b-3f5b5a7d1c11")
"""Namespace of image ids. Changing it changes every id: never do."""


class InvalidDocumentKey(PermanentError):  # noqa: N818
    """A workspace id, document id or document key that the grammar does not allow."""


def _check_part(value: str, name: str) -> str:
    if not _PART.fullmatch(value) or value in {".", ".."} or "..." in value:
        raise InvalidDocumentKey(
            f"{name} {value[:160]!r} is not valid: expected 1 to 128 characters of A-Z a-z 0-9 . _ - "
            "without '...'",
            hint="pick another id; `embedding-assets ingest` derives a valid one from a file name",
        )
    return value


@dataclass(frozen=True, order=True)
class DocumentKey:
    """A document of a workspace. `str(key)` is the Dagster partition key."""

    workspace_id: str
    document_id: str

    def __post_init__(self) -> None:
        _check_part(self.workspace_id, "workspace_id")
        _check_part(self.document_id, "document_id")

    def __str__(self) -> str:
        return f"{self.workspace_id}/{self.document_id}"

    @classmethod
    def parse(cls, text: str) -> DocumentKey:
        """Reads `workspace_id/document_id`; raises InvalidDocumentKey."""
        workspace_id, slash, document_id = text.partition("/")
        if not slash or "/" in document_id:
            raise InvalidDocumentKey(
                f"document key {text[:200]!r} is not valid: expected workspace_id/document_id",
                hint="`embedding-assets coverage` lists the documents' keys",
            )
        return cls(workspace_id, document_id)


def document_id_for_name(name: str) -> str:
    """A valid document id for a file's or folder's name; different names get different ids.

    A name that is valid already stays as it is. Otherwise unsafe characters become "-", and eight hexadecimal
    digits of the name's SHA-256 keep it apart from other names that would come out the same.
    """
    if _PART.fullmatch(name) and name not in {".", ".."} and "..." not in name:
        return name
    digest = hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:8]
    stem, dot, suffix = name.rpartition(".")
    if not dot:
        stem, suffix = name, ""
    stem = _UNSAFE.sub("-", stem).strip("-")[:100] or "document"
    suffix = _DOTTED_UNSAFE.sub("", suffix)[:12]
    return f"{stem}-{digest}.{suffix}" if suffix else f"{stem}-{digest}"


def image_id(key: DocumentKey, content_hash: str, occurrence: int) -> uuid.UUID:
    """The id of an image: UUIDv5 of document key, content hash and occurrence.

    Args:
        key: the document.
        content_hash: SHA-256 of the image's bytes, in hexadecimal.
        occurrence: 0 for the first image with these bytes in the document, 1 for the second, and so on.
    """
    return uuid.uuid5(IMAGE_NAMESPACE, f"{key}\n{content_hash}\n{occurrence}")
