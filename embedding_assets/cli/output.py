"""Printing for people and for programs."""

from __future__ import annotations

import json
import shutil
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from embedding_assets.errors import EmbeddingAssetsError
from embedding_assets.store.coverage_totals import CoverageTotal
from embedding_assets.store.documents import Coverage
from embedding_assets.store.failures import OpenFailure

PIPED_WIDTH = 200
"""Columns where output is no terminal: rich would fold tables at 80, which nobody can grep."""

out = Console(width=None if sys.stdout.isatty() else PIPED_WIDTH)
err = Console(stderr=True, soft_wrap=True)

POLL_S = 0.5
"""Seconds between looks at a count for the progress bar."""


def command_as_typed() -> str:
    """How to call this command from here: by its name where the shell finds it, else by its path."""
    name = "embedding-assets"
    script = Path(sys.argv[0]).absolute()
    if script.name != name or shutil.which(name) == str(script):
        return name
    return str(script.relative_to(Path.cwd())) if script.is_relative_to(Path.cwd()) else str(script)


def print_json(value: Any) -> None:
    """One JSON document on standard output."""
    sys.stdout.write(json.dumps(value, indent=2, default=str) + "\n")


def print_error(error: BaseException) -> None:
    """An error in one line, and what to do about it in the next."""
    if isinstance(error, EmbeddingAssetsError):
        message, hint = error.message, error.hint
    else:
        first = (str(error).strip() or type(error).__name__).splitlines()[0]
        message, hint = f"{type(error).__name__}: {first}", "run with --debug for the trace"
    err.print(f"[red]error:[/red] {_plain(message)}", highlight=False)
    if hint:
        err.print(f"  {_plain(hint)}", highlight=False)


def _plain(text: str) -> str:
    return text.replace("[", "\\[")


def print_table(title: str, columns: Sequence[tuple[str, bool]], rows: Sequence[Sequence[Any]]) -> None:
    """A table. Columns are (heading, whether it is numeric)."""
    table = Table(title=title, title_justify="left")
    for heading, numeric in columns:
        table.add_column(heading, justify="right" if numeric else "left", overflow="fold")
    for row in rows:
        table.add_row(*(_plain("" if value is None else str(value)) for value in row))
    out.print(table)


def coverage_as_dict(coverage: Coverage, minimum: float) -> dict[str, Any]:
    """Plain values, fit for JSON."""
    return {
        "document": str(coverage.key),
        "images": coverage.total,
        "embedded": coverage.embedded,
        "skipped": coverage.skipped,
        "rejected": coverage.rejected,
        "missing": coverage.missing,
        "coverage": round(coverage.ratio, 6),
        "ingested": coverage.ingested,
        "complete": coverage.is_complete(minimum),
    }


@dataclass(frozen=True)
class DocumentCoverage:
    """One document's coverage at each stage in use, by asset name; `slig_embeddings` comes first."""

    stages: dict[str, Coverage]

    @property
    def visual(self) -> Coverage:
        """That of the visual vectors, which every document gets."""
        return next(iter(self.stages.values()))

    def is_complete(self, minimum: float) -> bool:
        """Whether every stage is complete."""
        return all(coverage.is_complete(minimum) for coverage in self.stages.values())

    def as_dict(self, minimum: float) -> dict[str, Any]:
        """Plain values, fit for JSON: those of the visual vectors, and all stages."""
        return {
            **coverage_as_dict(self.visual, minimum),
            "complete": self.is_complete(minimum),
            "stages": {
                asset: {
                    name: value
                    for name, value in coverage_as_dict(coverage, minimum).items()
                    if name != "document"
                }
                for asset, coverage in self.stages.items()
            },
        }


def print_coverage(documents: Sequence[DocumentCoverage], minimum: float) -> None:
    """The coverage table, one row a document: the visual vectors' counts, then each stage's share."""
    if not documents:
        return
    assets = list(documents[0].stages)
    print_table(
        "Coverage",
        [
            ("document", False),
            *((name, True) for name in ("images", "embedded", "skipped", "rejected", "missing")),
            *((asset, True) for asset in assets),
            ("", False),
        ],
        [
            (
                document.visual.key,
                document.visual.total,
                document.visual.embedded,
                document.visual.skipped,
                document.visual.rejected,
                document.visual.missing,
                *(f"{coverage.ratio:.1%}" for coverage in document.stages.values()),
                next(
                    (
                        f"{_verdict(coverage, minimum)}: {asset}"
                        for asset, coverage in document.stages.items()
                        if not coverage.is_complete(minimum)
                    ),
                    "complete",
                ),
            )
            for document in documents
        ],
    )


def print_coverage_totals(totals: Mapping[str, CoverageTotal]) -> None:
    """One row a stage, by asset name: sums over all documents."""
    print_table(
        "All documents",
        [
            ("asset", False),
            *(
                (name, True)
                for name in ("documents", "complete", "images", "embedded", "skipped", "rejected")
            ),
            ("missing", True),
            ("coverage", True),
        ],
        [
            (
                asset,
                *(f"{value:,}" for value in (total.documents, total.complete, total.images, total.embedded)),
                *(f"{value:,}" for value in (total.skipped, total.rejected, total.missing)),
                f"{total.ratio:.1%}",
            )
            for asset, total in totals.items()
        ],
    )


def _verdict(coverage: Coverage, minimum: float) -> str:
    if not coverage.ingested:
        return "not ingested"
    if coverage.missing:
        return "incomplete"
    return "complete" if coverage.is_complete(minimum) else f"below {minimum:.0%}"


def failure_as_dict(failure: OpenFailure) -> dict[str, Any]:
    """Plain values, fit for JSON."""
    return {
        "document": str(failure.key),
        "image_id": str(failure.image_id) if failure.image_id else None,
        "index": failure.index,
        "path": failure.path,
        "page_number": failure.page_number,
        "stage": failure.stage,
        "class": failure.error_class,
        "error_type": failure.error_type,
        "error": failure.message,
        "attempts": failure.attempts,
        "last_seen_at": failure.last_seen_at.isoformat(),
        "next_retry_at": failure.next_retry_at.isoformat() if failure.next_retry_at else None,
        "run_id": failure.run_id,
    }


def print_failures(failures: Sequence[OpenFailure]) -> None:
    """The list of failed images (and documents), with reasons."""
    if not failures:
        out.print("No open failures.")
        return
    print_table(
        "Failures",
        [
            ("document", False),
            ("image", False),
            ("page", True),
            ("stage", False),
            ("class", False),
            ("tries", True),
            ("reason", False),
        ],
        [
            (
                failure.key,
                failure.path or "(the document)",
                failure.page_number,
                failure.stage,
                failure.error_class,
                failure.attempts,
                failure.message,
            )
            for failure in failures
        ],
    )


@contextmanager
def progress_bar(label: str, total: int, count: Callable[[], int]) -> Iterator[None]:
    """A progress bar that reads its count while the block runs; nothing where output is no terminal.

    Args:
        total: what `count` reaches when all is done.
        count: asked twice a second, from a thread of its own.
    """
    if not err.is_terminal or total == 0:
        yield
        return
    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=err,
    )
    task = bar.add_task(label, total=total)
    done = threading.Event()

    def watch() -> None:
        while not done.wait(POLL_S):
            try:
                bar.update(task, completed=count())
            except EmbeddingAssetsError as error:
                bar.console.print(f"progress is not known for the moment: {_plain(error.message)}")

    with bar:
        watcher = threading.Thread(target=watch, daemon=True, name="progress")
        watcher.start()
        try:
            yield
        finally:
            done.set()
            watcher.join(timeout=5)
            bar.update(task, completed=count())
