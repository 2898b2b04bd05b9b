"""Commands that run or examine the system: up, doctor, db upgrade, demo."""

from __future__ import annotations

import sys
from importlib.resources import files
from typing import Annotated

import typer

from embedding_assets.cli.demonstration import run_demo
from embedding_assets.cli.output import err, out, print_json
from embedding_assets.cli.serving import check_can_serve
from embedding_assets.deploy.health import Status, examine
from embedding_assets.deploy.instance import dagster_environment
from embedding_assets.deploy.supervisor import Service, check_port_free, run_services
from embedding_assets.settings import PREFIX, Settings, load_settings
from embedding_assets.store.database import Database, redact_url
from embedding_assets.store.embedded import start_embedded_postgres
from embedding_assets.store.schema import head_revision, upgrade_schema

db = typer.Typer(help="The database's schema.", no_args_is_help=True)


def register(app: typer.Typer) -> None:
    """Adds the commands."""
    app.command()(up)
    app.command()(doctor)
    app.command()(demo)
    app.add_typer(db, name="db")


def up() -> None:
    """Run the database, the Dagster UI, its daemon and the API with its page; Ctrl-C stops them all."""
    settings = load_settings()
    check_port_free(settings.dagster_host, settings.dagster_port, f"{PREFIX}DAGSTER_PORT")
    check_can_serve(settings)
    environment = dagster_environment(settings)
    workspace = ("-w", str(files("embedding_assets.deploy").joinpath("workspace.yaml")))
    services = [
        Service(
            "dagster-webserver",
            [
                *(sys.executable, "-m", "dagster_webserver"),
                *("-h", settings.dagster_host, "-p", str(settings.dagster_port)),
                *workspace,
            ],
            environment,
        ),
        Service("dagster-daemon", [sys.executable, "-m", "dagster._daemon", "run", *workspace], environment),
        Service("api", [sys.executable, "-m", "embedding_assets.cli", "serve"], environment),
    ]
    out.print(
        f"Dagster UI: http://{settings.dagster_host}:{settings.dagster_port}  (Ctrl-C stops everything)"
    )
    out.print(f"database:   {redact_url(environment['DATABASE_URL'])}", highlight=False)
    if settings.demo:
        out.print("profile:    the demo (its own database, the demo model)")
    ended = run_services(services)
    if ended is not None:
        err.print(
            f"[red]error:[/red] {ended} ended by itself; its last lines above say why. Everything is stopped."
        )
        raise typer.Exit(1)
    out.print("stopped")


def doctor(
    settings_only: Annotated[bool, typer.Option("--settings", help="Print the settings and stop.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Check database, pgvector, model, disk and folders, and say how to mend what is wrong."""
    settings = load_settings()
    if settings_only:
        _print_settings(settings, as_json)
        return
    checks = []
    marks = {
        Status.OK: "[green]ok[/green]     ",
        Status.WARNING: "[yellow]warning[/yellow]",
        Status.ERROR: "[red]error[/red]  ",
    }
    for check in examine(settings):
        checks.append(check)
        if not as_json:
            out.print(f"{marks[check.status]} {check.name}: ", end="")
            out.print(check.message, markup=False, highlight=False)
            if check.hint:
                out.print(f"          {check.hint}", markup=False, highlight=False)
    if as_json:
        print_json(
            [
                {"check": c.name, "status": c.status.value, "message": c.message, "hint": c.hint}
                for c in checks
            ]
        )
    if any(check.status is Status.ERROR for check in checks):
        raise typer.Exit(1)


def _print_settings(settings: Settings, as_json: bool) -> None:
    values = {name: str(getattr(settings, name)) for name in Settings.model_fields}  # secrets print as stars
    if as_json:
        print_json(values)
        return
    for name, value in values.items():
        out.print(f"{PREFIX}{name.upper()}={value}", markup=False, highlight=False)


@db.command()
def upgrade() -> None:
    """Bring the schema to this version's revision."""
    settings = load_settings()
    if settings.database_url is None:
        url = start_embedded_postgres(settings.embedded_data, settings.database_name)
    else:
        url = settings.database_url.get_secret_value()
    database = Database(url)
    changed = upgrade_schema(database)
    out.print(
        f"{redact_url(database.url)}: {'now' if changed else 'already'} at revision {head_revision()}",
        highlight=False,
    )


def demo() -> None:
    """Run the whole pipeline over a drawn catalogue, with a small demo model: no network, no key, no GPU."""
    if not run_demo():
        raise typer.Exit(1)
