"""`serve`: the API and its page. `keys`: who may use them."""

from __future__ import annotations

from typing import Annotated

import typer

from embedding_assets.cli.documents import DEFAULT_WORKSPACE, Json
from embedding_assets.cli.output import out, print_json, print_table
from embedding_assets.deploy.supervisor import check_port_free
from embedding_assets.errors import DocumentError
from embedding_assets.settings import PREFIX, Settings, load_settings
from embedding_assets.store.api_keys import (
    ApiKey,
    Role,
    create_key,
    forget_revoked_keys,
    list_keys,
    revoke_key,
)
from embedding_assets.store.database import open_database

keys = typer.Typer(help="Keys of the API.", no_args_is_help=True)

OPEN = (
    "No API key was made: whoever reaches this address may read and change everything. It is loopback, so that is "
    "whoever uses this machine."
)


def register(app: typer.Typer) -> None:
    """Adds the commands."""
    app.command()(serve)
    app.add_typer(keys, name="keys")


def api_url(settings: Settings) -> str:
    """Where the API and its page are."""
    host = f"[{settings.api_host}]" if ":" in settings.api_host else settings.api_host
    return f"http://{host}:{settings.api_port}"


def check_can_serve(settings: Settings) -> bool:
    """Whether the server will ask for no key; to be asked before it is started.

    Raises:
        SettingsError: others can reach the address, and there is no key.
        FatalError: the port is taken.
    """
    from embedding_assets.api.auth import check_may_listen

    is_open = check_may_listen(settings, open_database(settings))
    check_port_free(settings.api_host, settings.api_port, f"{PREFIX}API_PORT")
    return is_open


def serve() -> None:
    """Run the HTTP API and its page on this terminal; Ctrl-C stops it."""
    import uvicorn

    from embedding_assets.api.app import create_app

    settings = load_settings()
    is_open = check_can_serve(settings)
    out.print(f"API and page: {api_url(settings)}  (Ctrl-C stops it)", highlight=False)
    if is_open:
        out.print(OPEN, highlight=False)
    uvicorn.run(
        create_app(settings),
        host=settings.api_host,
        port=settings.api_port,
        workers=1,
        log_level=settings.log_level.lower(),
        access_log=False,  # it would log the query of each request
        proxy_headers=False,  # a client could choose the address that it is counted by
        server_header=False,
        timeout_keep_alive=15,
        timeout_graceful_shutdown=10,
        limit_concurrency=500,
        h11_max_incomplete_event_size=32 * 1024,
    )


@keys.command()
def create(
    workspaces: Annotated[
        list[str] | None,
        typer.Option("--workspace", "-w", help="Where it is good; may be repeated. '*': everywhere."),
    ] = None,
    role: Annotated[str, typer.Option("--role", help="reader, writer or admin.")] = "reader",
    name: Annotated[str, typer.Option("--name", help="What it is for.")] = "",
    as_json: Json = False,
) -> None:
    """Make a key and show it, once."""
    settings = load_settings()
    chosen = workspaces or ["demo" if settings.demo else DEFAULT_WORKSPACE]
    with open_database(settings).transaction() as connection:
        secret, key = create_key(connection, name, _role(role), chosen)
    if as_json:
        print_json({**_as_dict(key), "key": secret})
        return
    out.print(f"key {key.key_id}: {key.role} of {', '.join(key.workspaces)}", highlight=False, markup=False)
    out.print(secret, highlight=False, soft_wrap=True)
    out.print("It is not stored and can't be shown again. Send it as: Authorization: Bearer <key>")


@keys.command("list")
def list_() -> None:
    """Show all keys, without the keys themselves."""
    with open_database(load_settings()).transaction() as connection:
        found = list_keys(connection)
    print_table(
        "API keys",
        [
            ("id", False),
            ("name", False),
            ("role", False),
            ("workspaces", False),
            ("made", False),
            ("", False),
        ],
        [
            (
                key.key_id,
                key.name,
                key.role,
                ", ".join(key.workspaces),
                f"{key.created_at:%Y-%m-%d %H:%M}",
                f"revoked {key.revoked_at:%Y-%m-%d %H:%M}" if key.revoked_at else "",
            )
            for key in found
        ],
    )


@keys.command()
def revoke(
    key_id: Annotated[str | None, typer.Argument(help="The key's id, as `keys list` shows it.")] = None,
    forget: Annotated[
        bool,
        typer.Option(
            "--forget",
            help="Also remove the rows of all revoked keys. Without any key, a server on loopback runs open.",
        ),
    ] = False,
) -> None:
    """Refuse a key from now on."""
    if key_id is None and not forget:
        raise typer.BadParameter("expected the id of a key, or --forget")
    with open_database(load_settings()).transaction() as connection:
        if key_id is not None:
            if revoke_key(connection, key_id) is None:
                raise DocumentError(f"there is no key {key_id}", hint="see `embedding-assets keys list`")
            out.print(f"key {key_id} is refused from now on", highlight=False)
        if forget:
            out.print(f"{forget_revoked_keys(connection)} revoked keys removed", highlight=False)


def _role(value: str) -> Role:
    for role in ("reader", "writer", "admin"):
        if value == role:
            return role
    raise typer.BadParameter(f"{value}: expected reader, writer or admin", param_hint="--role")


def _as_dict(key: ApiKey) -> dict[str, object]:
    return {"key_id": key.key_id, "name": key.name, "role": key.role, "workspaces": list(key.workspaces)}
