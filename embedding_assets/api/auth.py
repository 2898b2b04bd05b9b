"""Who asks, and what they may do.

A key comes as `Authorization: Bearer <key>`, or from a browser in a cookie that the login form sets. Where no key was
ever made and the server listens on loopback only, it runs open: whoever can reach it may do all.

What a key may not see answers as if it were not there (404); what its role does not allow is 403, whether or not the
thing exists.
"""

from __future__ import annotations

import ipaddress
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated
from urllib.parse import urlsplit

from fastapi import Depends, Request
from fastapi.security import APIKeyCookie, HTTPAuthorizationCredentials, HTTPBearer

from embedding_assets.api.problems import Problem, ProblemError, not_found, problem
from embedding_assets.api.services import Services, services
from embedding_assets.errors import SettingsError
from embedding_assets.keys import DocumentKey
from embedding_assets.settings import PREFIX, Settings
from embedding_assets.store.api_keys import ALL_WORKSPACES, ROLES, ApiKey, Role, any_key, find_key
from embedding_assets.store.database import Database
from embedding_assets.store.documents import list_workspaces

logger = logging.getLogger(__name__)

COOKIE = "embedding_assets_key"
_SAFE_METHODS = {"GET", "HEAD", "OPTIONS"}
_PROXY_HEADERS = ("forwarded", "x-forwarded-for", "x-real-ip")

_bearer = HTTPBearer(
    auto_error=False, scheme_name="key", description="A key made by `embedding-assets keys create`."
)
_cookie = APIKeyCookie(
    name=COOKIE,
    auto_error=False,
    scheme_name="cookie",
    description="The same key, as the login form sets it.",
)


@dataclass(frozen=True)
class Principal:
    """Who asks.

    Attributes:
        role: what they may do.
        workspaces: where; None for everywhere.
        key_id: of their key; "" where the server runs open.
        by_cookie: whether a browser sent the key by itself.
    """

    role: Role
    workspaces: frozenset[str] | None
    key_id: str = ""
    by_cookie: bool = False

    @property
    def open(self) -> bool:
        """Whether nobody was asked for a key."""
        return not self.key_id

    def has_role(self, role: Role) -> bool:
        """Whether they may do what `role` may."""
        return ROLES.index(self.role) >= ROLES.index(role)

    def may_see(self, workspace_id: str) -> bool:
        """Whether a workspace is theirs."""
        return self.workspaces is None or workspace_id in self.workspaces


def is_loopback(host: str) -> bool:
    """Whether an address or host name means this machine only."""
    name = host.strip("[]").lower()
    if name == "localhost":
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def check_may_listen(settings: Settings, database: Database) -> bool:
    """Whether the server will run open; to be asked before it listens.

    Raises:
        SettingsError: the address is not loopback and no key was ever made.
    """
    with database.transaction() as connection:
        keys = any_key(connection)
    if not keys and not is_loopback(settings.api_host):
        raise SettingsError(
            f"api_host is {settings.api_host}, which others can reach, and there is no API key",
            hint="make one with `embedding-assets keys create --workspace <id> --role reader`, or set "
            f"{PREFIX}API_HOST=127.0.0.1",
        )
    return not keys


def principal(
    request: Request,
    known: Annotated[Services, Depends(services)],
    bearer: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)] = None,
    cookie: Annotated[str | None, Depends(_cookie)] = None,
) -> Principal:
    """Who asks, as a dependency; also counts the request against their rate limit.

    Raises:
        ProblemError: 401 without a good key, 403 for a request that another site had a browser send, 429.
    """
    presented = bearer.credentials if bearer is not None else cookie
    by_cookie = bearer is None and cookie is not None
    found: Principal | None = None
    with known.database.transaction() as connection:
        if presented:
            key = find_key(connection, presented)
            found = None if key is None else principal_of(key, by_cookie=by_cookie)
        if found is None and not any_key(
            connection
        ):  # a browser may still send the cookie of a key that is gone
            found = _open_principal(request, known.settings)
    limiter = request.app.state.rate_limiter
    limiter.count(found.key_id if found is not None and found.key_id else client_of(request))
    if found is None:
        raise _unauthorized("the key is not known, or was revoked" if presented else "a key is needed")
    if (found.by_cookie or found.open) and request.method not in _SAFE_METHODS:
        check_same_origin(request, by_cookie=found.by_cookie)
    return found


def principal_of(key: ApiKey, *, by_cookie: bool = False) -> Principal:
    """What a key stands for."""
    everywhere = ALL_WORKSPACES in key.workspaces
    return Principal(key.role, None if everywhere else frozenset(key.workspaces), key.key_id, by_cookie)


def client_of(request: Request) -> str:
    """The address that a request came from; it never looks like a key's id."""
    return f"from {request.client.host}" if request.client else "from nowhere"


def _unauthorized(reason: str) -> ProblemError:
    return ProblemError(
        Problem(
            401,
            f"{reason}; expected the header Authorization: Bearer <key>",
            "`embedding-assets keys create` makes keys",
            headers={"WWW-Authenticate": "Bearer"},
        )
    )


def _open_principal(request: Request, settings: Settings) -> Principal | None:
    """Everything is allowed, where nobody but this machine can be asking; None where that is not sure.

    The settings' address is what the server was told; where the connection really came in is looked at too. A Host of
    another name is a page that had its name resolve to loopback (DNS rebinding), and a forwarded request comes from a
    proxy, which others can reach.
    """
    local = request.scope.get("server")
    if not is_loopback(settings.api_host) or local is None or not is_loopback(str(local[0])):
        return None
    if request.client is None or not is_loopback(request.client.host):
        return None
    host = urlsplit(f"//{request.headers.get('host', '')}").hostname or ""
    if not is_loopback(host):
        raise problem(
            403,
            "without keys, this server answers only to its loopback name",
            "ask http://127.0.0.1 or http://localhost, or make a key with `embedding-assets keys create`",
        )
    if any(name in request.headers for name in _PROXY_HEADERS):
        raise problem(
            403,
            "without keys, this server does not answer requests that a proxy hands on",
            "make a key with `embedding-assets keys create`",
        )
    return Principal("admin", None)


def check_same_origin(request: Request, *, by_cookie: bool) -> None:
    """Raises a 403 problem where a browser sent the request on behalf of another site.

    Args:
        by_cookie: a request that says nothing of its origin is refused: every browser of today says it.
    """
    site = request.headers.get("sec-fetch-site")
    origin = request.headers.get("origin")
    if site is not None:
        same = site in {"same-origin", "none"}
    elif origin is not None:
        same = urlsplit(origin).netloc == request.headers.get("host")
    else:
        same = not by_cookie
    if not same:
        raise problem(
            403,
            "this request changes something and does not come from this server's own page",
            "programs send the key as Authorization: Bearer <key>",
        )


def require(role: Role) -> Callable[..., Principal]:
    """A dependency: the principal, who must have at least this role."""

    def check(who: Annotated[Principal, Depends(principal)]) -> Principal:
        if not who.has_role(role):
            raise problem(403, f"this needs a key of role {role}; this one's is {who.role}")
        return who

    return check


Reader = Annotated[Principal, Depends(require("reader"))]
Writer = Annotated[Principal, Depends(require("writer"))]
Admin = Annotated[Principal, Depends(require("admin"))]
Known = Annotated[Services, Depends(services)]


def workspace_for(who: Principal, known: Services, workspace_id: str | None) -> str:
    """The workspace that a request is about: the one it names, or the only one that it can mean.

    Raises:
        ProblemError: 404 where it is not theirs, 422 where it has to be named.
    """
    if workspace_id is None:
        if who.workspaces is None:
            return known.default_workspace
        if len(who.workspaces) > 1:
            raise problem(422, "workspace_id is missing: this key is for more than one workspace")
        (workspace_id,) = who.workspaces
    if not who.may_see(workspace_id):
        raise not_found("workspace")
    DocumentKey(workspace_id, "any")  # raises where it is not valid
    return workspace_id


def workspaces_of(who: Principal, known: Services) -> list[str]:
    """All workspaces that they may see, of those that a key names or that have documents."""
    if who.workspaces is not None:
        return sorted(who.workspaces)
    with known.database.transaction() as connection:
        return list_workspaces(connection)
