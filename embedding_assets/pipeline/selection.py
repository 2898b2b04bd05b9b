"""Which documents a backfill takes, asset by asset."""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum

from embedding_assets.errors import SettingsError
from embedding_assets.keys import DocumentKey
from embedding_assets.pipeline.asset_stages import INGEST_ASSET, assets_in_use, stages_in_use
from embedding_assets.pipeline.ingestion import INGEST
from embedding_assets.pipeline.versions import code_version_of
from embedding_assets.settings import Settings
from embedding_assets.store.database import Database
from embedding_assets.store.documents import list_documents, list_workspaces
from embedding_assets.store.selection import (
    documents_lacking,
    documents_never_read,
    documents_of_other_versions,
    documents_to_ingest,
    documents_with_failures,
    release_failures,
)


class Which(str, Enum):
    """The documents that a backfill takes."""

    MISSING = "missing"
    """Not done yet, and a run can bring them further."""
    FAILED = "failed"
    """With open failures, permanent ones too."""
    STALE = "stale"
    """Done by another model, template or schema version than the settings' own."""
    ALL = "all"


def select_documents(
    database: Database,
    settings: Settings,
    which: Which,
    *,
    workspace_id: str | None = None,
    assets: Sequence[str] | None = None,
) -> dict[str, list[DocumentKey]]:
    """The documents to materialize, by asset, in the order in which assets run; assets without any are left out.

    Args:
        workspace_id: only this workspace.
        assets: only these; by default all that the settings ask for.

    Raises:
        SettingsError: an asset is unknown, or not in use under these settings.
    """
    in_use = assets_in_use(settings)
    chosen = list(assets) if assets else in_use
    if unknown := [asset for asset in chosen if asset not in in_use]:
        raise SettingsError(
            f"no asset in use is called {', '.join(unknown)}",
            hint=f"the assets in use are {', '.join(in_use)}",
        )
    stages = {stage.asset: stage for stage in stages_in_use(settings)}
    selected: dict[str, list[DocumentKey]] = {}
    with database.transaction() as connection:
        for workspace in [workspace_id] if workspace_id else list_workspaces(connection):
            for asset in (asset for asset in in_use if asset in chosen):
                stage = INGEST if asset == INGEST_ASSET else stages[asset].name
                if which is Which.ALL:
                    keys = list_documents(connection, workspace)
                elif which is Which.FAILED:
                    keys = documents_with_failures(connection, workspace, stage)
                elif which is Which.STALE:
                    version = code_version_of(stage, settings)
                    keys = documents_of_other_versions(connection, workspace, stage, version)
                elif asset == INGEST_ASSET:
                    keys = documents_to_ingest(connection, workspace)
                else:
                    flag, minimum = stages[asset].flag, settings.min_coverage
                    keys = documents_lacking(connection, workspace, stage, flag, minimum)
                    if INGEST_ASSET in chosen:  # they will have been read by then
                        keys = sorted({*keys, *documents_never_read(connection, workspace)})
                selected.setdefault(asset, []).extend(keys)
    if which is Which.FAILED:
        _follow(selected, chosen, in_use)
    return {asset: keys for asset, keys in selected.items() if keys}


def release(database: Database, settings: Settings, selected: dict[str, list[DocumentKey]]) -> int:
    """Makes the permanent failures of the selected documents due again; returns how many rows changed."""
    stages = {stage.asset: stage.name for stage in stages_in_use(settings)}
    with database.transaction() as connection:
        return sum(
            release_failures(connection, keys, INGEST if asset == INGEST_ASSET else stages[asset])
            for asset, keys in selected.items()
        )


def _follow(selected: dict[str, list[DocumentKey]], chosen: Sequence[str], in_use: Sequence[str]) -> None:
    """What is read or analysed again has to go on from there."""
    after = {INGEST_ASSET: list(in_use), "vision_analysis": ["understanding_embeddings"]}
    for asset, followers in after.items():
        for follower in followers:
            if follower in chosen and follower in selected:
                selected[follower] = sorted({*selected[follower], *selected.get(asset, ())})
