"""The commands `serve` and `keys`, as a person runs them: a real server on a free port."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from embedding_assets.settings import PREFIX
from embedding_assets_tests.cli.conftest import Command, command

__all__ = ["command"]

pytestmark = pytest.mark.slow

PATIENCE_S = 60.0


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Served:
    """A running `embedding-assets serve`."""

    def __init__(self, url: str, folder: Path, **variables: str) -> None:
        self.port = free_port()
        self.address = f"http://127.0.0.1:{self.port}"
        self.log = folder / "serve.log"
        environment = {
            **os.environ,
            "DATABASE_URL": url,
            f"{PREFIX}VAR_DIR": str(folder / "var"),
            f"{PREFIX}API_PORT": str(self.port),
            **variables,
        }
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "embedding_assets.cli", "serve"],
                env=environment,
                cwd=folder,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        deadline = time.monotonic() + PATIENCE_S
        while True:
            try:
                httpx.get(f"{self.address}/healthz", timeout=5)
                break
            except httpx.TransportError:
                assert self.process.poll() is None, self.log.read_text()
                assert time.monotonic() < deadline, self.log.read_text()
                time.sleep(0.05)

    def stop(self) -> int:
        self.process.send_signal(signal.SIGINT)
        return self.process.wait(PATIENCE_S)


@pytest.fixture
def served(database_url: str, tmp_path: Path) -> Iterator[Served]:
    server = Served(database_url, tmp_path)
    yield server
    if server.process.poll() is None:
        server.process.kill()
        server.process.wait()


def test_it_runs_open_on_loopback_says_so_and_stops_at_ctrl_c(served: Served) -> None:
    assert httpx.get(f"{served.address}/readyz").json() == {"status": "ok"}
    assert httpx.get(f"{served.address}/api/documents").json() == {"items": [], "next": None}
    assert httpx.get(f"{served.address}/api/documents", headers={"Host": "evil.example"}).status_code == 403
    found = httpx.get(f"{served.address}/api/nothing")
    assert "server" not in found.headers
    assert found.headers["content-security-policy"].startswith("default-src 'self'")
    code = served.stop()
    said = served.log.read_text()
    assert code in (0, 130), said
    assert served.address in said
    assert "No API key was made" in said
    assert "/api/documents" not in said  # requests are not logged


def test_a_body_that_never_ends_is_cut_off(database_url: str, tmp_path: Path) -> None:
    server = Served(
        database_url, tmp_path, **{f"{PREFIX}API_TIMEOUT_S": "1", f"{PREFIX}API_MAX_BODY_MB": "1"}
    )
    try:
        with socket.create_connection(("127.0.0.1", server.port), timeout=PATIENCE_S) as connection:
            head = f"POST /api/search HTTP/1.1\r\nHost: 127.0.0.1:{server.port}\r\n"
            head += "Content-Type: application/json\r\nContent-Length: 1000\r\n\r\n{"
            connection.sendall(head.encode())
            assert connection.recv(4096).startswith(b"HTTP/1.1 503")
        with socket.create_connection(("127.0.0.1", server.port), timeout=PATIENCE_S) as connection:
            head = head.replace("Content-Length: 1000", "Transfer-Encoding: chunked").removesuffix("{")
            connection.sendall(head.encode())
            chunk = b"10000\r\n" + b" " * 0x10000 + b"\r\n"
            for _ in range(20):
                connection.sendall(chunk)
            assert connection.recv(4096).startswith(b"HTTP/1.1 413")
    finally:
        server.stop()


def test_it_does_not_start_where_others_can_reach_it_without_a_key(
    command: Command, database_url: str
) -> None:
    environment = {
        "DATABASE_URL": database_url,
        f"{PREFIX}API_HOST": "0.0.0.0",
        f"{PREFIX}API_PORT": str(free_port()),
    }
    refused = command("serve", **environment)
    assert refused.returncode == 2
    assert "there is no API key" in refused.stderr
    assert "keys create" in refused.stderr
    up = command("up", **environment, **{f"{PREFIX}DAGSTER_PORT": str(free_port())})
    assert up.returncode == 2
    assert "there is no API key" in up.stderr


def test_keys_are_made_listed_and_revoked(command: Command, database_url: str, tmp_path: Path) -> None:
    made = json.loads(
        command(
            *("keys", "create", "--workspace", "shop", "--role", "writer", "--name", "the shop", "--json"),
            DATABASE_URL=database_url,
        ).stdout
    )
    assert (made["role"], made["workspaces"]) == ("writer", ["shop"])
    listed = command("keys", "list", DATABASE_URL=database_url).stdout
    assert made["key_id"] in listed
    assert "the shop" in listed
    assert made["key"] not in listed
    assert made["key"].split("_")[2] not in listed
    server = Served(database_url, tmp_path)
    try:
        headers = {"Authorization": f"Bearer {made['key']}"}
        assert httpx.get(f"{server.address}/api/documents", headers=headers).status_code == 200
        assert httpx.get(f"{server.address}/api/documents").status_code == 401
        assert command("keys", "revoke", made["key_id"], DATABASE_URL=database_url).returncode == 0
        assert httpx.get(f"{server.address}/api/documents", headers=headers).status_code == 401
    finally:
        server.stop()
    said = server.log.read_text()
    assert made["key"] not in said
    assert "No API key was made" not in said
    assert command("keys", "revoke", "nothing", DATABASE_URL=database_url).returncode == 1
    assert command("keys", "create", "--role", "owner", DATABASE_URL=database_url).returncode == 2
    assert command("keys", "revoke", "--forget", DATABASE_URL=database_url).returncode == 0
    assert made["key_id"] not in command("keys", "list", DATABASE_URL=database_url).stdout
