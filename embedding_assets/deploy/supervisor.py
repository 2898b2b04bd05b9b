"""Several processes on one terminal: started together, stopped together."""

from __future__ import annotations

import errno
import os
import signal
import socket
import subprocess
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import FrameType

from embedding_assets.errors import FatalError

STOP_GRACE_S = 30.0
"""Seconds that a process gets to end by itself."""


@dataclass(frozen=True)
class Service:
    """A process to run."""

    name: str
    command: Sequence[str]
    environment: Mapping[str, str] = field(default_factory=dict)


def check_port_free(host: str, port: int, setting: str) -> None:
    """Raises FatalError where something else listens on the port already."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                raise FatalError(
                    f"port {port} on {host} is taken by another process",
                    hint=f"stop it, or choose another port: {setting}=<port>",
                ) from error
            raise FatalError(
                f"can't listen on {host}:{port}: {error.strerror}", hint=f"check {setting}"
            ) from error


def run_services(services: Sequence[Service], stopping: threading.Event | None = None) -> str | None:
    """Runs the services until a signal comes (SIGINT, SIGTERM) or one of them ends.

    Each runs in a session of its own, so that Ctrl-C reaches only this process, which stops them in reverse
    order: SIGTERM, and SIGKILL to the whole group where that does not help in time.

    Args:
        stopping: may be set by another thread to stop all.

    Returns:
        None after a signal; else the name of the service that ended by itself.
    """
    stop = stopping or threading.Event()

    def on_signal(number: int, frame: FrameType | None) -> None:
        stop.set()

    previous = {number: signal.signal(number, on_signal) for number in (signal.SIGINT, signal.SIGTERM)}
    processes: list[tuple[Service, subprocess.Popen[bytes]]] = []
    ended: list[str] = []
    try:
        for service in services:
            process = subprocess.Popen(
                list(service.command), env={**os.environ, **service.environment}, start_new_session=True
            )
            processes.append((service, process))
            threading.Thread(target=_watch, args=(service.name, process, ended, stop), daemon=True).start()
        while not stop.wait(0.5):  # a bounded wait: an unbounded one would hold signals back
            continue
    finally:
        ended_by_itself = ended[0] if ended else None
        for _, process in reversed(processes):
            _stop(process)
        for number, handler in previous.items():
            signal.signal(number, handler)
    return ended_by_itself


def _watch(name: str, process: subprocess.Popen[bytes], ended: list[str], stop: threading.Event) -> None:
    process.wait()
    if not stop.is_set():
        ended.append(name)
        stop.set()


def _stop(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(STOP_GRACE_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    try:
        os.killpg(process.pid, signal.SIGKILL)  # what it started and left behind
    except ProcessLookupError:
        return
