"""URLs are fetched within the policy, and never from inside the network. The server is real, on loopback."""

from __future__ import annotations

import ipaddress
import socket
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from embedding_assets.errors import ImageRejected, ThrottledError, TransientError
from embedding_assets.ingest.fetch import FetchPolicy, fetch_image
from embedding_assets.ingest.guarded_network import IPAddress, is_public_address

BODY = b"\x89PNG pretend" * 1000
stop_dripping = threading.Event()


class _Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        name = self.path.split("?")[0].strip("/")
        if name == "image":
            self._answer(200, BODY)
        elif name == "host":
            self._answer(200, self.headers["Host"].encode())
        elif name.startswith("status-"):
            self._answer(int(name[7:]), b"no")
        elif name == "retry-seconds":
            self._answer(429, b"", {"Retry-After": "17"})
        elif name == "retry-date":
            self._answer(429, b"", {"Retry-After": "Wed, 21 Oct 2015 07:28:00 GMT"})
        elif name.startswith("hop-"):
            left = int(name[4:])
            self._answer(302, b"", {"Location": f"/hop-{left - 1}" if left else "/image"})
        elif name == "to":
            self._answer(307, b"", {"Location": self.path.split("?", 1)[1]})
        elif name == "declared-large":
            self._answer(200, b"", {"Content-Length": "99999999"})
        elif name == "endless":
            self.send_response(200)
            self.end_headers()
            while self._try_write(b"x" * 65536):
                pass
        elif name == "drip-body":
            self.send_response(200)
            self.end_headers()
            self._drip()
        elif name == "drip-headers":
            self._try_write(b"HTTP/1.1 200 OK\r\nX-Slow: ")
            self._drip()
        elif name == "short":
            self._answer(200, b"abc", {"Content-Length": "1000"})
        elif name == "gzip":
            self._answer(200, b"abc", {"Content-Encoding": "gzip"})
        elif name == "hang-up":
            self.connection.close()

    def _drip(self) -> None:
        while not stop_dripping.wait(0.02) and self._try_write(b"y"):
            pass

    def _try_write(self, data: bytes) -> bool:
        try:
            self.wfile.write(data)
        except OSError:
            return False
        return True

    def _answer(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: object) -> None:
        """Nothing on the terminal."""


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    http = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    thread = threading.Thread(target=http.serve_forever, daemon=True)
    thread.start()
    yield f"http://localhost:{http.server_port}"
    stop_dripping.set()
    http.shutdown()
    http.server_close()


def _loopback_too(address: IPAddress) -> bool:
    return address.is_loopback or is_public_address(address)


def _policy(**changes: object) -> FetchPolicy:
    values = {"enabled": True, "allowed_hosts": ["localhost"], "address_allowed": _loopback_too, **changes}
    return FetchPolicy(**values)  # type: ignore[arg-type]


def test_an_image_is_fetched_with_its_host_name(server: str) -> None:
    assert fetch_image(f"{server}/image?signature=secret", _policy(), 10**6) == BODY
    assert fetch_image(f"{server}/host", _policy(), 10**6).startswith(b"localhost:")


def test_nothing_is_fetched_while_it_is_off(server: str) -> None:
    with pytest.raises(ImageRejected, match="not fetched here") as caught:
        fetch_image(f"{server}/image", _policy(enabled=False), 10**6)
    assert "fetch_urls=true" in (caught.value.hint or "")


def test_the_default_policy_refuses_loopback_even_when_its_host_is_allowed(server: str) -> None:
    with pytest.raises(ImageRejected, match=r"localhost resolves to .*, which is not a public address"):
        fetch_image(f"{server}/image", FetchPolicy(enabled=True, allowed_hosts=["localhost"]), 10**6)


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("ftp://localhost/x", "expected an http or https URL, got the scheme 'ftp'"),
        ("file:///etc/passwd", "expected an http or https URL"),
        ("//localhost/x", "expected an http or https URL"),
        ("http:///x", "names no host"),
        ("http://", "names no host"),
        ("nonsense", "expected an http or https URL"),
        ("http://user:pw@localhost/x", "user name or password"),
        ("http://elsewhere.example/x", "the host elsewhere.example is not in allowed_url_hosts"),
        ("http://localhost.evil.example/x", "is not in allowed_url_hosts"),
        ("http://127.0.0.1/x", "the host 127.0.0.1 is not in allowed_url_hosts"),
        ("http://[::1]/x", "is not in allowed_url_hosts"),
        ("http://local\x00host/x", "is no URL"),
        ("http://localhost:99999999/x", "there is no port 99999999"),
    ],
)
def test_a_url_outside_the_policy_is_rejected(url: str, reason: str) -> None:
    with pytest.raises(ImageRejected) as caught:
        fetch_image(url, _policy(), 10**6)
    assert reason in caught.value.message


def test_a_wildcard_allows_subdomains_only() -> None:
    policy = _policy(allowed_hosts=["*.invalid"])
    with pytest.raises((ImageRejected, TransientError), match="resolved"):
        fetch_image("http://images.invalid/x", policy, 10**6)
    with pytest.raises(ImageRejected, match="allowed_url_hosts"):
        fetch_image("http://invalid/x", policy, 10**6)


def test_redirects_are_followed_up_to_five(server: str) -> None:
    assert fetch_image(f"{server}/hop-4", _policy(), 10**6) == BODY
    with pytest.raises(ImageRejected, match="more than 5 redirects"):
        fetch_image(f"{server}/hop-5", _policy(), 10**6)


@pytest.mark.parametrize(
    ("target", "reason"),
    [
        ("http://169.254.169.254/latest/meta-data", "the host 169.254.169.254 is not in allowed_url_hosts"),
        ("http://10.0.0.1/x", "is not in allowed_url_hosts"),
        ("file:///etc/passwd", "expected an http or https URL"),
        ("http://user:pw@localhost/x", "user name or password"),
    ],
)
def test_a_redirect_is_checked_like_the_first_url(server: str, target: str, reason: str) -> None:
    with pytest.raises(ImageRejected) as caught:
        fetch_image(f"{server}/to?{target}", _policy(), 10**6)
    assert reason in caught.value.message


def test_a_redirect_to_an_allowed_host_with_a_private_address_is_rejected(server: str) -> None:
    policy = _policy(allowed_hosts=["localhost", "10.1.2.3"])
    with pytest.raises(ImageRejected, match=r"10\.1\.2\.3, which is not a public address"):
        fetch_image(f"{server}/to?http://10.1.2.3/x", policy, 10**6)


def test_the_connection_goes_to_the_address_that_was_checked(
    server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A name that answers with a harmless address first and a private one then (DNS rebinding) gains nothing."""
    answers = ["127.0.0.1", "10.9.8.7"]
    resolve = socket.getaddrinfo

    def rebinding(host: str, port: int, *args: Any, **options: Any) -> Any:
        return resolve(answers.pop(0) if host == "localhost" else host, port, *args, **options)

    monkeypatch.setattr("embedding_assets.ingest.guarded_network.socket.getaddrinfo", rebinding)
    assert fetch_image(f"{server}/image", _policy(), 10**6) == BODY
    assert answers == ["10.9.8.7"]


def test_one_private_address_among_several_is_enough_to_refuse(monkeypatch: pytest.MonkeyPatch) -> None:
    def mixed(host: str, port: int, **options: object) -> list[tuple[object, ...]]:
        return [(2, 1, 6, "", (address, port)) for address in ("8.8.8.8", "192.168.0.1")]

    monkeypatch.setattr("embedding_assets.ingest.guarded_network.socket.getaddrinfo", mixed)
    with pytest.raises(ImageRejected, match=r"192\.168\.0\.1"):
        fetch_image("http://localhost/x", FetchPolicy(True, ["localhost"]), 10**6)


@pytest.mark.parametrize("path", ["declared-large", "endless"])
def test_a_body_over_the_limit_is_rejected_without_reading_it_all(server: str, path: str) -> None:
    with pytest.raises(ImageRejected, match="the limit is 100000 bytes"):
        fetch_image(f"{server}/{path}", _policy(), 100_000)


@pytest.mark.parametrize("path", ["drip-body", "drip-headers"])
def test_a_slow_answer_ends_at_the_time_limit(server: str, path: str) -> None:
    started = time.monotonic()
    with pytest.raises(TransientError, match=r"no complete answer within 0\.3 s"):
        fetch_image(f"{server}/{path}", _policy(timeout_s=0.3), 10**6)
    assert time.monotonic() - started < 10


@pytest.mark.parametrize("status", [400, 401, 403, 404, 410, 418, 204])
def test_an_answer_without_an_image_is_final(server: str, status: int) -> None:
    with pytest.raises(ImageRejected, match=f"HTTP {status}"):
        fetch_image(f"{server}/status-{status}", _policy(), 10**6)


@pytest.mark.parametrize("status", [408, 425, 500, 502, 503, 504])
def test_a_server_in_trouble_is_transient(server: str, status: int) -> None:
    with pytest.raises(TransientError, match=f"HTTP {status}"):
        fetch_image(f"{server}/status-{status}", _policy(), 10**6)


@pytest.mark.parametrize(
    ("path", "seconds"), [("retry-seconds", 17.0), ("retry-date", 0.0), ("status-429", None)]
)
def test_throttling_tells_how_long_to_wait(server: str, path: str, seconds: float | None) -> None:
    with pytest.raises(ThrottledError) as caught:
        fetch_image(f"{server}/{path}", _policy(), 10**6)
    assert caught.value.retry_after == seconds


@pytest.mark.parametrize("path", ["short", "hang-up"])
def test_a_broken_connection_is_transient(server: str, path: str) -> None:
    with pytest.raises(TransientError, match="the connection failed"):
        fetch_image(f"{server}/{path}", _policy(), 10**6)


def test_a_refused_connection_is_transient() -> None:
    closed = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    port = closed.server_port
    closed.server_close()
    with pytest.raises(TransientError):
        fetch_image(f"http://localhost:{port}/x", _policy(), 10**6)


def test_an_encoding_that_was_not_asked_for_is_rejected(server: str) -> None:
    with pytest.raises(ImageRejected, match="content-encoding gzip"):
        fetch_image(f"{server}/gzip", _policy(), 10**6)


def test_messages_do_not_repeat_the_query_of_a_url(server: str) -> None:
    with pytest.raises(ImageRejected) as caught:
        fetch_image(f"{server}/status-404?signature=secret", _policy(), 10**6)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1", "127.8.8.8", "0.0.0.0", "10.0.0.1", "172.16.0.1", "192.168.1.1", "169.254.169.254",
        "100.64.0.1", "100.127.255.254", "224.0.0.1", "239.1.1.1", "240.0.0.1", "255.255.255.255", "192.0.2.1",
        "198.18.0.1", "192.0.0.1", "::", "::1", "fe80::1", "fc00::1", "fd12::1", "ff02::1", "2001:db8::1",
        "::ffff:127.0.0.1", "::ffff:10.0.0.1", "::ffff:169.254.169.254", "::127.0.0.1", "64:ff9b::7f00:1",
        "64:ff9b::a00:1", "2002:7f00:1::", "2002:a00:1::",
    ],
)  # fmt: skip
def test_addresses_inside_a_network_are_not_public(address: str) -> None:
    assert not is_public_address(ipaddress.ip_address(address))


@pytest.mark.parametrize("address", ["8.8.8.8", "93.184.215.14", "2606:2800:21f:cb07::1", "::ffff:8.8.8.8"])
def test_addresses_of_the_internet_are_public(address: str) -> None:
    assert is_public_address(ipaddress.ip_address(address))
