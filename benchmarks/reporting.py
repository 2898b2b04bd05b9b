"""What all benchmarks share: where it ran, a table, a JSON file, and the exit code of --check."""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Bar:
    """What a figure has to reach: at least `minimum`, or at most `maximum`."""

    name: str
    value: float
    minimum: float | None = None
    maximum: float | None = None

    @property
    def reached(self) -> bool:
        """Whether the figure is where it has to be."""
        return (self.minimum is None or self.value >= self.minimum) and (
            self.maximum is None or self.value <= self.maximum
        )

    def __str__(self) -> str:
        bounds = [
            f"{word} {bound:g}"
            for word, bound in (("at least", self.minimum), ("at most", self.maximum))
            if bound is not None
        ]
        verdict = "reached" if self.reached else "MISSED"
        return f"{self.name}: {self.value:.3g} ({' and '.join(bounds)}) {verdict}"


def arguments(description: str | None) -> argparse.ArgumentParser:
    """A parser with the options that every benchmark has: --quick, --check, --json FILE."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument(
        "--quick", action="store_true", help="smaller and rougher; figures are not to be quoted"
    )
    parser.add_argument("--check", action="store_true", help="exit with 1 where a bar is missed")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the results to this file")
    return parser


def machine(*packages: str) -> dict[str, str]:
    """The machine, and the versions of Python and of the named packages."""
    facts = {
        "system": f"{platform.system()} {platform.machine()}",
        "cpu": _cpu(),
        "cores": str(_cores()),
        "memory": f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30:.0f} GiB",
        "python": platform.python_version(),
    }
    for package in packages:
        try:
            facts[package] = version(package)
        except PackageNotFoundError:
            facts[package] = "not installed"
    return facts


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or "unknown"
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "unknown")


def print_machine(facts: Mapping[str, str]) -> None:
    """One line with all of `machine()`."""
    print(" · ".join(f"{name} {value}" for name, value in facts.items()), flush=True)


def print_table(rows: Sequence[Mapping[str, Any]]) -> None:
    """A Markdown table; the first row's keys are the columns. Floats get three significant digits."""
    if not rows:
        return
    columns = list(rows[0])
    cells = [[_cell(row.get(column)) for column in columns] for row in rows]
    widths = [max(len(column), *(len(line[n]) for line in cells)) for n, column in enumerate(columns)]
    numeric = [all(isinstance(row.get(column), int | float) for row in rows) for column in columns]
    rule = [
        "-" * (width - 1) + ":" if number else "-" * width
        for width, number in zip(widths, numeric, strict=True)
    ]
    for line in (columns, rule, *cells):
        padded = [
            text.rjust(width) if number else text.ljust(width)
            for text, width, number in zip(line, widths, numeric, strict=True)
        ]
        print("| " + " | ".join(padded) + " |", flush=True)


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
    return f"{value:,}" if isinstance(value, int) else str(value if value is not None else "")


def finish(results: Mapping[str, Any], bars: Sequence[Bar], args: argparse.Namespace) -> None:
    """Prints the bars, writes --json, and ends the process: 1 where --check is given and a bar is missed."""
    for bar in bars:
        print(bar, flush=True)
    if args.json:
        document = {
            **results,
            "bars": [{**vars(bar), "reached": bar.reached} for bar in bars],
            "quick": args.quick,
        }
        args.json.write_text(json.dumps(document, indent=2, default=str) + "\n")
    sys.exit(1 if args.check and not all(bar.reached for bar in bars) else 0)
