"""`remove`: documents that are to go, with all that was made of them."""

from __future__ import annotations

from typing import Annotated

import typer

from embedding_assets.cli.documents import Json
from embedding_assets.cli.output import out, print_json
from embedding_assets.cli.runs import drop_partitions
from embedding_assets.keys import DocumentKey
from embedding_assets.pipeline.removal import check_removable
from embedding_assets.pipeline.removal import remove as remove_documents
from embedding_assets.settings import load_settings
from embedding_assets.store.database import open_database


def register(app: typer.Typer) -> None:
    """Adds the command."""
    app.command()(remove)


def remove(
    document: Annotated[list[str], typer.Argument(help="Document keys, workspace/document.")],
    as_json: Json = False,
) -> None:
    """Remove documents: their rows, vectors, failures and partitions. Their files have to be gone already."""
    settings = load_settings()
    database = open_database(settings)
    keys = [DocumentKey.parse(text) for text in document]
    check_removable(database, settings.landing, keys)
    drop_partitions(settings, keys)
    removed = remove_documents(database, keys)
    if as_json:
        print_json({"removed": removed})
    else:
        out.print(f"{removed} documents removed", highlight=False)
