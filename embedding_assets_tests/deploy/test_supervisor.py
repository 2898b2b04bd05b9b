"""Several processes on one terminal: started together, stopped together."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from embedding_assets.deploy.supervisor import check_port_free
from embedding_assets.errors import FatalError


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_until(condition: Callable[[], bool], what: str, seconds: float = 90) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"waited {seconds} s for {what}"
        time.sleep(0.1)


def test_a_taken_port_is_named_with_its_setting() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(FatalError, match=f"port {port}") as caught:
            check_port_free("127.0.0.1", port, "EMBEDDING_ASSETS_DAGSTER_PORT")
    assert "EMBEDDING_ASSETS_DAGSTER_PORT" in (caught.value.hint or "")


def test_a_free_port_passes() -> None:
    check_port_free("127.0.0.1", free_port(), "EMBEDDING_ASSETS_DAGSTER_PORT")


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_up_serves_the_ui_and_stops_everything_on_a_signal(tmp_path: Path, number: signal.Signals) -> None:
    port = free_port()
    log = (tmp_path / "up.log").open("w+")
    up = subprocess.Popen(
        [sys.executable, "-m", "embedding_assets.cli", "--demo", "up"],
        cwd=tmp_path,
        env={
            **os.environ,
            "EMBEDDING_ASSETS_DAGSTER_PORT": str(port),
            "EMBEDDING_ASSETS_VAR_DIR": str(tmp_path / "v"),
        },
        stdout=log,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    try:

        def serves() -> bool:
            assert up.poll() is None, (tmp_path / "up.log").read_text()
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/server_info", timeout=5) as answer:
                    return bool(answer.status == 200)
            except OSError:
                return False

        wait_until(serves, "the UI")
        started = psutil.Process(up.pid).children(recursive=True)
        assert len(started) >= 2
        second = subprocess.run(
            [sys.executable, "-m", "embedding_assets.cli", "--demo", "up"],
            cwd=tmp_path,
            env={
                **os.environ,
                "EMBEDDING_ASSETS_DAGSTER_PORT": str(port),
                "EMBEDDING_ASSETS_VAR_DIR": str(tmp_path / "v"),
            },
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert second.returncode == 1
        assert f"port {port}" in second.stderr
        up.send_signal(number)
        assert up.wait(timeout=60) == 0, (tmp_path / "up.log").read_text()
        wait_until(lambda: not any(process.is_running() for process in started), "the processes to end", 20)
    finally:
        if up.poll() is None:
            up.kill()
        log.close()
