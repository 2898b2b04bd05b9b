"""Images by URL: only where it is switched on, only from named hosts, and never from inside the network.

Every check is made for the URL as posted and again for each redirect: scheme, host allow-list, address.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime

import httpcore
import httpx

from embedding_assets.errors import ImageRejected, ThrottledError, TransientError
from embedding_assets.ingest.guarded_network import (
    AddressPolicy,
    GuardedBackend,
    is_public_address,
    remaining,
)
from embedding_assets.settings import Settings

MAX_REDIRECTS = 5
_REDIRECTS = {301, 302, 303, 307, 308}
_RETRIED_STATUSES = {408, 425}
_HEADERS = {"accept": "image/*", "accept-encoding": "identity", "user-agent": "embedding-assets"}
_GONE = {401: "needs a login", 403: "refused", 404: "not found", 410: "gone"}


@dataclass(frozen=True)
class FetchPolicy:
    """What may be fetched.

    Attributes:
        enabled: whether URLs are fetched at all (setting fetch_urls).
        allowed_hosts: host names (setting allowed_url_hosts); "*.example.com" stands for all its subdomains.
        timeout_s: seconds for one URL, all redirects included (setting url_timeout_s).
        address_allowed: which network addresses may be connected to; the public ones. There is no setting for it.
    """

    enabled: bool = False
    allowed_hosts: Sequence[str] = ()
    timeout_s: float = 30.0
    address_allowed: AddressPolicy = field(default=is_public_address)

    @classmethod
    def from_settings(cls, settings: Settings) -> FetchPolicy:
        """The policy that the settings give."""
        return cls(settings.fetch_urls, tuple(settings.allowed_url_hosts), settings.url_timeout_s)


def fetch_image(url: str, policy: FetchPolicy, max_bytes: int) -> bytes:
    """Fetches one URL.

    Args:
        url: http or https.
        policy: what may be fetched, and for how long.
        max_bytes: a larger body is refused as soon as that is known.

    Returns:
        The body, complete; whether it is an image is for `inspect_image` to say.

    Raises:
        ImageRejected: fetching is off, the URL is not allowed, the server says that there is nothing to be had
            (401, 403, 404, 410 and other 4xx), or the body is empty or too large.
        ThrottledError: 429, with the seconds of Retry-After where given.
        TransientError: 5xx, time-outs, refused and broken connections.
    """
    if not policy.enabled:
        raise ImageRejected(
            "URLs are not fetched here", hint="set fetch_urls=true and allowed_url_hosts to fetch posted URLs"
        )
    deadline = time.monotonic() + policy.timeout_s
    current = _checked(url, policy)
    try:
        with httpcore.ConnectionPool(
            ssl_context=httpx.create_ssl_context(trust_env=False),
            network_backend=GuardedBackend(policy.address_allowed, deadline),
        ) as pool:
            for _ in range(MAX_REDIRECTS + 1):
                answer = _get(pool, current, max_bytes, deadline)
                if isinstance(answer, bytes):
                    return answer
                current = _checked(str(current.join(answer)), policy)
    except httpcore.TimeoutException as error:
        raise TransientError(
            f"{_shown(current)}: no complete answer within {policy.timeout_s:g} s"
        ) from error
    except (httpcore.NetworkError, httpcore.ProtocolError, OSError) as error:
        raise TransientError(
            f"{_shown(current)}: the connection failed ({error or type(error).__name__})"
        ) from error
    except httpx.InvalidURL as error:
        raise ImageRejected(f"redirected to something that is no URL: {error}") from error
    raise ImageRejected(f"{url[:200]}: more than {MAX_REDIRECTS} redirects")


def _checked(url: str, policy: FetchPolicy) -> httpx.URL:
    try:
        parsed = httpx.URL(url)
        host = parsed.raw_host.decode("ascii").lower().rstrip(".")
    except (httpx.InvalidURL, ValueError) as error:
        raise ImageRejected(f"{url[:200]!r} is no URL: {error}") from None
    if parsed.scheme not in {"http", "https"}:
        raise ImageRejected(f"{url[:200]!r}: expected an http or https URL, got the scheme {parsed.scheme!r}")
    if not host:
        raise ImageRejected(f"{url[:200]!r} names no host")
    if parsed.port is not None and not 0 < parsed.port < 65536:
        raise ImageRejected(f"{url[:200]!r}: there is no port {parsed.port}")
    if parsed.userinfo:
        raise ImageRejected(f"{_shown(parsed)}: URLs with a user name or password in them are not fetched")
    if not any(_matches(host, allowed.lower().rstrip(".")) for allowed in policy.allowed_hosts):
        raise ImageRejected(
            f"{_shown(parsed)}: the host {host} is not in allowed_url_hosts",
            hint=f"add {host} to allowed_url_hosts if its images may be fetched",
        )
    return parsed


def _matches(host: str, allowed: str) -> bool:
    return host.endswith(allowed[1:]) if allowed.startswith("*.") else host == allowed


def _get(pool: httpcore.ConnectionPool, url: httpx.URL, max_bytes: int, deadline: float) -> bytes | str:
    """The body, or where the server redirects to."""
    left = remaining(deadline, None)
    timeouts = {"connect": left, "read": left, "write": left, "pool": left}
    target = httpcore.URL(
        scheme=url.raw_scheme, host=url.raw_host, port=url.port, target=url.raw_path or b"/"
    )
    headers = [(b"host", url.netloc), *((k.encode(), v.encode()) for k, v in _HEADERS.items())]
    with pool.stream("GET", target, headers=headers, extensions={"timeout": timeouts}) as response:
        answer = httpx.Headers(response.headers)
        if response.status in _REDIRECTS and "location" in answer:
            return answer["location"]
        _check_status(url, response.status, answer)
        encoding = answer.get("content-encoding", "identity").lower()
        if encoding not in {"identity", ""}:
            raise ImageRejected(
                f"{_shown(url)}: sent with content-encoding {encoding}, which was not asked for"
            )
        declared = answer.get("content-length", "")
        if declared.isdecimal() and int(declared) > max_bytes:
            raise _too_large(url, int(declared), max_bytes)
        body = bytearray()
        for chunk in response.iter_stream():
            body += chunk
            if len(body) > max_bytes:
                raise _too_large(url, len(body), max_bytes)
            remaining(deadline, None)
    return bytes(body)


def _check_status(url: httpx.URL, status: int, headers: httpx.Headers) -> None:
    if status == 200:
        return
    shown = f"{_shown(url)}: HTTP {status}"
    if status == 429:
        raise ThrottledError(f"{shown}, too many requests", retry_after=_retry_after(headers))
    if status >= 500 or status in _RETRIED_STATUSES:
        raise TransientError(shown)
    raise ImageRejected(f"{shown} ({_GONE.get(status, 'expected 200 with an image')})")


def _retry_after(headers: httpx.Headers) -> float | None:
    """Seconds of a Retry-After header, given as a number or a date (RFC 9110, section 10.2.3)."""
    value = headers.get("retry-after", "").strip()
    if value.isdecimal():
        return float(value)
    try:
        moment = parsedate_to_datetime(value)
    except (ValueError, TypeError):
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=timezone.utc)
    return max(0.0, (moment - datetime.now(timezone.utc)).total_seconds())


def _too_large(url: httpx.URL, size: int, max_bytes: int) -> ImageRejected:
    return ImageRejected(
        f"{_shown(url)}: {size} bytes or more; the limit is {max_bytes} bytes (max_image_bytes)"
    )


def _shown(url: httpx.URL) -> str:
    """The URL for messages: without query and user, which may hold secrets."""
    return str(url.copy_with(userinfo=b"", query=None, fragment=None))[:200]
