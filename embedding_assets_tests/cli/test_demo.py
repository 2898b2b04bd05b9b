"""`embedding-assets demo`: the first thing that anybody runs."""

from __future__ import annotations

import re

import pytest

from embedding_assets_tests.cli.conftest import Command

pytestmark = pytest.mark.slow


def test_the_demo_shows_coverage_failures_and_right_answers_and_a_second_one_changes_nothing(
    command: Command,
) -> None:
    first = command("demo")
    assert first.returncode == 0, first.stdout + first.stderr
    assert "architects-selection.pdf" in first.stdout
    assert "truncated" in first.stdout
    assert "30000x30000" in first.stdout
    assert "blue herringbone" in first.stdout
    assert "--demo up" in first.stdout
    assert "demo model" in first.stdout
    top = re.search(r"visual: blue herringbone.*?\n(?:.*\n){3}(.*)\n", first.stdout)
    assert top, first.stdout
    assert "Blue Herringbone" in top.group(1), first.stdout

    second = command("demo")
    assert second.returncode == 0
    assert "0 documents ingested (6 unchanged), 0 embedded (6 complete already)" in second.stdout
    assert command("--demo", "coverage").stdout == command("--demo", "coverage").stdout
    assert "No documents yet" in command("coverage").stdout, "the demo must leave the real profile alone"
