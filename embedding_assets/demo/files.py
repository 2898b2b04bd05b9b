"""Writing drawn files: each appears whole or not at all, and what is there already is left alone."""

import hashlib
import os
import tempfile
from pathlib import Path


def has_content(path: Path, digest: str) -> bool:
    """Tell whether there is a file of this SHA-256 (hexadecimal)."""
    return path.is_file() and hashlib.sha256(path.read_bytes()).hexdigest() == digest


def write_file(path: Path, content: bytes) -> bool:
    """Put `content` at `path` in one step; return False where it is there already."""
    if path.is_file() and path.read_bytes() == content:
        return False
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, temporary = tempfile.mkstemp(prefix=".", suffix=".part", dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
        Path(temporary).chmod(0o644)
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    return True
