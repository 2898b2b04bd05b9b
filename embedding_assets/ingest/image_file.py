"""Reading an image file whole, within the limits."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from upath import UPath

from embedding_assets.errors import ImageRejected, TransientError
from embedding_assets.ingest.decode import check_byte_size
from embedding_assets.ingest.limits import IngestLimits


def read_file(path: Path | UPath, limits: IngestLimits) -> bytes:
    """A file's bytes, at most as many as the limit allows.

    Raises:
        ImageRejected: not there, no regular file, or too large.
        TransientError: it can't be read at the moment.
    """
    try:
        if isinstance(path, Path):
            return _read_local(path, limits)
        check_byte_size(path.stat().st_size, limits)
        return bytes(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        raise ImageRejected(f"{path} is not there") from None
    except (IsADirectoryError, PermissionError) as error:
        raise ImageRejected(f"{path} can't be read: {error.strerror or error}") from None
    except ImageRejected:
        raise
    except Exception as error:  # fsspec lets its clients' own errors through, not only OSError
        raise TransientError(f"{path} can't be read: {error}") from error


def _read_local(path: Path, limits: IngestLimits) -> bytes:
    # Not blocking: opening a named pipe would wait for its writer for ever.
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(descriptor, "rb") as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise ImageRejected(f"{path} is no regular file")
        check_byte_size(status.st_size, limits)
        data = file.read(limits.max_image_bytes + 1)
    check_byte_size(len(data), limits)
    return data
