"""The command's frame: global options, error handling, exit codes; and the small commands."""

from __future__ import annotations

import logging
import os
import sys
import warnings
from typing import Annotated

import typer

from embedding_assets import __version__
from embedding_assets.cli import (
    backfill,
    document_backfill,
    documents,
    evaluation,
    indexes,
    maintenance,
    removal,
    search,
    services,
    serving,
)
from embedding_assets.cli.output import err, print_error
from embedding_assets.errors import EmbeddingAssetsError, SettingsError
from embedding_assets.settings import PREFIX, load_settings

app = typer.Typer(
    name="embedding-assets",
    help="Catalogue documents become searchable image vectors, with complete and provable coverage.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

_debug = False


def _version(value: bool) -> None:
    if value:
        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def configure(
    demo: Annotated[bool, typer.Option("--demo", help="Work on the demo's database and folders.")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the trace of an error.")] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Reads and checks the settings before any command runs."""
    global _debug
    _debug = debug
    if demo:
        os.environ[f"{PREFIX}DEMO"] = "true"
    settings = load_settings()
    # The level is the handler's: Dagster sets those of the package's loggers, for its own record of a run.
    console = logging.StreamHandler(sys.stderr)
    console.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    console.setLevel(settings.log_level if debug else logging.WARNING)
    logging.getLogger().addHandler(console)
    if debug:
        logging.getLogger("embedding_assets").setLevel(settings.log_level)
    # Dagster 1.13 warns of its own "beta" parameters at each use; backfill_policy is one.
    warnings.filterwarnings("ignore", category=Warning, module="dagster")


documents.register(app)
search.register(app)
evaluation.register(app)
services.register(app)
serving.register(app)
backfill.register(app)
indexes.register(app)
maintenance.register(app)
document_backfill.register(app)
removal.register(app)


def main() -> None:
    """Entry point of the console script."""
    try:
        code = app(standalone_mode=False)  # gives back what typer.Exit says, rather than raising it
    except (typer.Abort, KeyboardInterrupt):
        err.print("stopped")
        sys.exit(130)
    except Exception as error:
        usage = getattr(error, "format_message", None)
        if usage is not None:  # click's own errors: wrong usage
            err.print(f"[red]error:[/red] {usage()}", highlight=False)
            sys.exit(2)
        if _debug:
            raise
        print_error(error)
        if not isinstance(error, EmbeddingAssetsError):
            logging.getLogger(__name__).debug("unexpected error", exc_info=error)
        sys.exit(2 if isinstance(error, SettingsError) else 1)
    sys.exit(code if isinstance(code, int) else 0)
