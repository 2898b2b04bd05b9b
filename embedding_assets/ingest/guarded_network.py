"""Network connections that go to checked addresses only, and end when their time is up.

The host is resolved here and the connection made to the very address that was checked: a name that resolves to
a public address when asked first and to a private one when asked again (DNS rebinding) gains nothing.
"""

from __future__ import annotations

import ipaddress
import socket
import ssl
import time
from collections.abc import Callable, Iterable
from typing import Any

import httpcore

from embedding_assets.errors import ImageRejected, TransientError

IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address
AddressPolicy = Callable[[IPAddress], bool]
"""Says whether an address may be connected to."""

_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")  # RFC 6052
_IPV4_COMPATIBLE = ipaddress.IPv6Network("::/96")  # RFC 4291, section 2.5.5.1
_SHARED = ipaddress.IPv4Network("100.64.0.0/10")  # RFC 6598, carrier-grade NAT


def is_public_address(address: IPAddress) -> bool:
    """Whether an address is one of the public internet, by the address itself and by any IPv4 address in it.

    Private, loopback, link-local (cloud metadata services among them), multicast, reserved, unspecified and shared
    (carrier-grade NAT) addresses are not; nor are IPv6 addresses that stand for such an IPv4 one (mapped,
    compatible, 6to4, Teredo, NAT64).
    """
    if isinstance(address, ipaddress.IPv6Address):
        return all(_is_plain_public(inner) for inner in [*_embedded_ipv4(address)]) and (
            address.ipv4_mapped is not None or _is_plain_public(address)
        )
    return _is_plain_public(address)


class GuardedBackend(httpcore.NetworkBackend):
    """Connects like httpcore's own backend, to allowed addresses, until a deadline.

    Args:
        allowed: what may be connected to.
        deadline: `time.monotonic()` value after which every operation times out, however steadily the server
            sends single bytes.
    """

    def __init__(self, allowed: AddressPolicy, deadline: float) -> None:
        self._allowed = allowed
        self._deadline = deadline
        self._inner = httpcore.SyncBackend()

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.NetworkStream:
        """Resolves, checks, and connects to the first address that answers.

        Raises:
            ImageRejected: the host does not exist, or one of its addresses is not allowed.
            TransientError: it can't be resolved at the moment.
        """
        addresses = _resolve(host, port)
        for address in addresses:
            if not self._allowed(address):
                raise ImageRejected(
                    f"{host} resolves to {address}, which is not a public address",
                    hint="put the file into the landing folder and post its path instead",
                )
        failure: Exception | None = None
        for address in addresses:
            try:
                stream = self._inner.connect_tcp(
                    str(address), port, remaining(self._deadline, timeout), local_address, socket_options
                )
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:
                failure = error
            else:
                return _DeadlineStream(stream, self._deadline)
        raise failure or httpcore.ConnectError(f"{host} has no address")


class _DeadlineStream(httpcore.NetworkStream):
    def __init__(self, inner: httpcore.NetworkStream, deadline: float) -> None:
        self._inner = inner
        self._deadline = deadline

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return self._inner.read(max_bytes, remaining(self._deadline, timeout))

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._inner.write(buffer, remaining(self._deadline, timeout))

    def close(self) -> None:
        self._inner.close()

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.NetworkStream:
        stream = self._inner.start_tls(ssl_context, server_hostname, remaining(self._deadline, timeout))
        return _DeadlineStream(stream, self._deadline)

    def get_extra_info(self, info: str) -> Any:
        return self._inner.get_extra_info(info)


def remaining(deadline: float, timeout: float | None) -> float:
    """Seconds until the deadline, `timeout` at most; raises httpcore.ReadTimeout when there are none."""
    left = deadline - time.monotonic()
    if left <= 0:
        raise httpcore.ReadTimeout("time limit reached")
    return left if timeout is None else min(left, timeout)


def _resolve(host: str, port: int) -> list[IPAddress]:
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (socket.gaierror, UnicodeError) as error:
        if getattr(error, "errno", None) == socket.EAI_AGAIN:
            raise TransientError(f"{host} can't be resolved at the moment: {error}") from error
        raise ImageRejected(f"{host} can't be resolved: {error}") from error
    addresses = [ipaddress.ip_address(str(item[4][0]).split("%", 1)[0]) for item in found]
    return list(dict.fromkeys(addresses))


def _embedded_ipv4(address: ipaddress.IPv6Address) -> list[ipaddress.IPv4Address]:
    found = [inner for inner in (address.ipv4_mapped, address.sixtofour, *(address.teredo or ())) if inner]
    if address in _NAT64 or address in _IPV4_COMPATIBLE:
        found.append(ipaddress.IPv4Address(int(address) & 0xFFFFFFFF))
    return found


def _is_plain_public(address: IPAddress) -> bool:
    if isinstance(address, ipaddress.IPv4Address) and address in _SHARED:
        return False
    return address.is_global and not (
        address.is_private
        or address.is_loopback
        or address.is_link_local
        or address.is_multicast
        or address.is_reserved
        or address.is_unspecified
    )
