"""What Dagster leaves on disk, and how long it stays: outputs of ops and logs of runs and ticks.

Dagster 1.13 pickles what ops hand on into a folder for each run and never removes it, and it keeps every compute
log. Both are of use only while a run may still be looked at or re-executed.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

_RUN_ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_LOG_SUFFIXES = {".out", ".err", ".complete"}


@dataclass(frozen=True)
class Pruned:
    """What was removed: folders of runs, log files of ticks, and bytes of both."""

    runs: int = 0
    logs: int = 0
    bytes_freed: int = 0


def prune_run_files(
    storage: Path,
    older_than: float,
    ended_at: Callable[[str], float | None],
    is_running: Callable[[str], bool],
) -> Pruned:
    """Removes the files of runs that ended, and the logs of ticks that were written, before a point in time.

    Args:
        storage: Dagster's base folder for artefacts and compute logs.
        older_than: seconds since 1970.
        ended_at: when a run ended; None where it is not known any more, then the folder's own time counts.
        is_running: whether a run is still to end; its files stay, however old.
    """
    runs = logs = size = 0
    for parent in (storage, storage / "storage"):
        if not parent.is_dir():
            continue
        for folder in sorted(parent.iterdir()):
            if not folder.is_dir() or folder.is_symlink() or not _RUN_ID.fullmatch(folder.name):
                continue
            if is_running(folder.name):
                continue
            ended = ended_at(folder.name)
            if (folder.stat().st_mtime if ended is None else ended) >= older_than:
                continue
            size += sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
            shutil.rmtree(folder)
            runs += 1
    for path in sorted(storage.rglob("*")) if storage.is_dir() else ():
        inside = path.relative_to(storage).parts
        if path.suffix not in _LOG_SUFFIXES or any(_RUN_ID.fullmatch(part) for part in inside[:2]):
            continue
        status = path.stat()
        if path.is_file() and status.st_mtime < older_than:
            path.unlink()
            logs += 1
            size += status.st_size
    return Pruned(runs, logs, size)
