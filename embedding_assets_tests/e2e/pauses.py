"""Where a process stands still, so that a test can kill it in the middle of its work."""

from __future__ import annotations

import os
import threading
from pathlib import Path

FOLDER, PAUSES = "E2E_FOLDER", "E2E_PAUSES"


def pause(stage: str, content: str) -> None:
    """Stands still where the test wants this process killed."""
    wanted = Path(os.environ[PAUSES]) / stage
    try:
        if wanted.read_text() != content:
            return
        wanted.rename(wanted.with_suffix(".taken"))  # by one process only
    except FileNotFoundError:
        return
    note = wanted.with_suffix(".writing")
    note.write_text(str(os.getpid()))
    note.rename(wanted.with_suffix(".paused"))
    threading.Event().wait()
