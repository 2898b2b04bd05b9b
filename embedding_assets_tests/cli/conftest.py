"""The command as a person runs it: a process of its own, with settings in its environment."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

Command = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def command(tmp_path: Path) -> Command:
    """Runs `embedding-assets ARGUMENTS`; keyword arguments are further environment variables."""

    def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        variables = {**os.environ, "EMBEDDING_ASSETS_VAR_DIR": str(tmp_path / "var"), **environment}
        return subprocess.run(
            [sys.executable, "-m", "embedding_assets.cli", *arguments],
            env=variables,
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )

    return run
