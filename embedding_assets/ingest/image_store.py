"""Image bytes, kept by content: the same bytes are stored once, whoever brings them.

Key: `ab/cd/<sha256>.<suffix>`, where `abcd` are the first digits of the SHA-256 of the bytes. What is stored under
a key never changes, so writers need no locks.
"""

from __future__ import annotations

import contextlib
import hashlib
import re
import uuid
from pathlib import Path
from urllib.parse import unquote

from upath import UPath

from embedding_assets.errors import InfrastructureError, PermanentError, TransientError

_SUFFIXES = {
    "JPEG": "jpg",
    "PNG": "png",
    "WEBP": "webp",
    "TIFF": "tif",
    "GIF": "gif",
    "BMP": "bmp",
    "AVIF": "avif",
}
_KEY = re.compile(r"([0-9a-f]{2})/([0-9a-f]{2})/((\1\2)[0-9a-f]{60})\.[a-z]{3,4}")


class ImageStore:
    """A folder or bucket of image files.

    Args:
        root: a local folder, or any URL that fsspec reads (`s3://bucket/images`, `gs://...`, `memory://...`). A
            local folder is made when the first image is stored.
    """

    def __init__(self, root: str) -> None:
        self.root = root
        self._local = local_path(root)
        self._remote = UPath(root) if self._local is None else None

    def put(self, data: bytes, image_format: str) -> str:
        """Stores an image, unless it is there already, and returns its key.

        A file never stands under its key before it is complete: local files are written beside it and renamed,
        object stores publish an object when its upload ends. Several processes may put the same image at once.

        Args:
            data: the image file's bytes.
            image_format: as `ImageInfo.format` names it; decides the suffix.

        Raises:
            InfrastructureError: the store can't be written.
            PermanentError: the format has no suffix here.
        """
        if image_format not in _SUFFIXES:
            raise PermanentError(
                f"the image store keeps {', '.join(sorted(_SUFFIXES))}, not {image_format!r}"
            )
        digest = hashlib.sha256(data).hexdigest()
        key = f"{digest[:2]}/{digest[2:4]}/{digest}.{_SUFFIXES[image_format]}"
        try:
            if self._local is not None:
                _write_local(self._local / key, data)
            else:
                self._write_remote(key, data)
        except Exception as error:  # fsspec lets its clients' own errors through
            raise InfrastructureError(
                f"the image store {self.root} can't be written: {error}",
                hint="check the disk's free space and the permissions of image_store_root",
            ) from error
        return key

    def get(self, key: str) -> bytes:
        """The bytes of an image, checked against the key's SHA-256.

        Raises:
            PermanentError: the key is malformed, nothing is stored under it, or the bytes are not what was stored.
            TransientError: the store can't be read at the moment.
            InfrastructureError: the store's folder itself is not there: no image is to blame.
        """
        digest = _digest_of(key)
        try:
            data = (
                (self._local / key).read_bytes()
                if self._local is not None
                else self._remote_path(key).read_bytes()
            )
        except FileNotFoundError:
            if self._local is not None and not self._local.is_dir():
                raise InfrastructureError(
                    f"the image store {self.root} is not there",
                    hint="mount it, or point image_store_root to the folder that holds it",
                ) from None
            raise PermanentError(
                f"image {key} is not in the image store {self.root}",
                hint="ingest its document again, or point image_store_root to the folder that holds it",
            ) from None
        except Exception as error:  # fsspec lets its clients' own errors through
            raise TransientError(f"image {key} can't be read from {self.root}: {error}") from error
        if hashlib.sha256(data).hexdigest() != digest:
            raise PermanentError(
                f"image {key} in {self.root} is corrupt: its bytes do not have the SHA-256 in its name",
                hint="delete that file, then ingest its document again",
            )
        return bytes(data)

    def exists(self, key: str) -> bool:
        """Whether an image is stored under the key.

        Raises:
            PermanentError: the key is malformed.
            TransientError: the store can't be read at the moment.
        """
        _digest_of(key)
        try:
            if self._local is not None:
                return (self._local / key).is_file()
            return bool(self._remote_path(key).exists())
        except Exception as error:  # fsspec lets its clients' own errors through
            raise TransientError(f"the image store {self.root} can't be read: {error}") from error

    def _remote_path(self, key: str) -> UPath:
        assert self._remote is not None
        return self._remote / key

    def _write_remote(self, key: str, data: bytes) -> None:
        path = self._remote_path(key)
        if path.exists() and path.stat().st_size == len(data):
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)


def local_path(root: str) -> Path | None:
    """The local folder that a root names, as a plain path or `file:` URL; None where it is on another system."""
    if root.startswith("file://"):
        return Path(unquote(root.removeprefix("file://")))
    if "://" in root:
        return None
    return Path(root).expanduser()


def _digest_of(key: str) -> str:
    match = _KEY.fullmatch(key)
    if match is None:
        raise PermanentError(
            f"{key[:160]!r} is no key of the image store: expected ab/cd/<64 hexadecimal digits>.<suffix>"
        )
    return match.group(3)


def _write_local(path: Path, data: bytes) -> None:
    with contextlib.suppress(FileNotFoundError):
        if path.stat().st_size == len(data):
            return
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{uuid.uuid4().hex}.part")
    try:
        part.write_bytes(data)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
