"""What people ask for by hand, turned into documents to materialize: regenerate, understand, retry.

Each function changes what makes images due again (vectors and permanent failures go), and says which documents of
which assets have to run. It runs nothing itself.
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field

from sqlalchemy import Connection

from embedding_assets.keys import DocumentKey
from embedding_assets.pipeline.asset_stages import INGEST_ASSET, AssetStage, assets_in_use, stages_in_use
from embedding_assets.pipeline.ingestion import INGEST
from embedding_assets.settings import Settings
from embedding_assets.store.analyses import documents_to_understand
from embedding_assets.store.database import Database
from embedding_assets.store.documents import coverage_by_stage
from embedding_assets.store.listing import documents_of_images
from embedding_assets.store.retrying import failures_to_retry, release_chosen
from embedding_assets.store.selection import release_failures
from embedding_assets.store.spaces import active_collections
from embedding_assets.store.stages import SLIG, STAGE_COLLECTIONS, TEXT, UNDERSTANDING, VISION
from embedding_assets.store.vectors import forget_vectors

REGENERATED = (SLIG, UNDERSTANDING, TEXT)
"""Stages whose vectors are made anew where that is forced. Analyses stay: they are made by another provider."""


@dataclass(frozen=True)
class WorkToDo:
    """Documents to materialize, and what was found.

    Attributes:
        targets: asset -> documents, in the order in which assets run; assets without any are left out.
        counts: what was found to do, by name.
    """

    targets: dict[str, list[DocumentKey]]
    counts: dict[str, int] = field(default_factory=dict)

    @property
    def document_ids(self) -> list[str]:
        """Ids of all documents, sorted."""
        return sorted({key.document_id for keys in self.targets.values() for key in keys})


def regenerate(
    database: Database,
    settings: Settings,
    workspace_id: str,
    *,
    document_id: str | None = None,
    image_ids: Sequence[uuid.UUID] | None = None,
    force: bool = False,
) -> WorkToDo:
    """Embeds what lacks vectors, and with `force` what has them too: their vectors are dropped in one transaction.

    Until a forced run is through, the images are missing from searches by these vectors. Permanent failures of the
    images are tried again only with `force`.

    Args:
        document_id: only this document.
        image_ids: only these images; those that the workspace has not are left out, and counted.
        force: drop the vectors that there are.
    """
    stages = stages_in_use(settings)
    counts = {"vectors_dropped": 0, "failures_released": 0}
    with database.transaction() as connection:
        if image_ids is not None:
            owners = documents_of_images(connection, workspace_id, image_ids)
            by_document: dict[str, list[uuid.UUID] | None] = {}
            for image_id, owner in owners.items():
                if document_id in (None, owner):
                    of_document = by_document.setdefault(owner, [])
                    assert of_document is not None
                    of_document.append(image_id)
            chosen = sum(len(ids or ()) for ids in by_document.values())
            counts |= {"images": chosen, "images_unknown": len(set(image_ids)) - chosen}
        else:
            by_document = dict.fromkeys(_documents(connection, workspace_id, document_id, stages, force))
        if force:
            for owner, ids in by_document.items():
                key = DocumentKey(workspace_id, owner)
                counts["vectors_dropped"] += _forget(connection, key, ids)
                counts["failures_released"] += sum(
                    release_chosen(
                        connection, workspace_id, document_id=owner, image_ids=ids, stage=stage.name
                    )
                    for stage in stages
                )
        missing = coverage_by_stage(connection, workspace_id, stages, list(by_document))
    targets = {}
    for stage in stages:
        lacking = [row.key for row in missing[stage.name] if row.missing]
        counts[f"missing_{stage.name}"] = sum(row.missing for row in missing[stage.name])
        if lacking:
            targets[stage.asset] = lacking
    return WorkToDo(_followed(targets, settings), counts)


def understand(
    database: Database,
    settings: Settings,
    workspace_id: str,
    *,
    document_id: str | None = None,
    analysed_only: bool = False,
) -> WorkToDo:
    """Images that lack an understanding vector: those that are analysed already, and those that are not.

    Args:
        document_id: only this document.
        analysed_only: leave out what would have to be analysed first.
    """
    only = None if document_id is None else [document_id]
    vision = next((stage for stage in stages_in_use(settings) if stage.name == VISION), None)
    targets: dict[str, list[DocumentKey]] = {}
    to_analyse = 0
    with database.transaction() as connection:
        analysed = documents_to_understand(connection, workspace_id, document_id)
        if vision is not None and not analysed_only:
            rows = coverage_by_stage(connection, workspace_id, [vision], only)[vision.name]
            to_analyse = sum(row.missing for row in rows)
            if lacking := [row.key for row in rows if row.missing]:
                targets[vision.asset] = lacking
    targets["understanding_embeddings"] = [DocumentKey(workspace_id, name) for name in analysed]
    counts = {"images_to_embed": sum(analysed.values()), "images_to_analyse": to_analyse}
    return WorkToDo(_followed(targets, settings), counts)


def retry_failures(
    database: Database,
    settings: Settings,
    workspace_id: str,
    *,
    document_id: str | None = None,
    image_ids: Sequence[uuid.UUID] | None = None,
    stage: str | None = None,
) -> WorkToDo:
    """Makes failures due again, permanent ones too. Where ingest failed, the whole document is read again."""
    assets = {INGEST: INGEST_ASSET, **{one.name: one.asset for one in stages_in_use(settings)}}
    targets: dict[str, list[DocumentKey]] = {}
    with database.transaction() as connection:
        found = failures_to_retry(
            connection, workspace_id, document_id=document_id, image_ids=image_ids, stage=stage
        )
        released = release_chosen(
            connection, workspace_id, document_id=document_id, image_ids=image_ids, stage=stage
        )
        unread = [DocumentKey(workspace_id, one.document_id) for one in found if one.stage == INGEST]
        if unread:
            release_failures(connection, unread, INGEST)
    for one in found:
        if one.stage in assets:
            targets.setdefault(assets[one.stage], []).append(DocumentKey(workspace_id, one.document_id))
    counts = {"failures": sum(one.failures for one in found), "failures_released": released}
    return WorkToDo(_followed(targets, settings), counts)


def _documents(
    connection: Connection,
    workspace_id: str,
    document_id: str | None,
    stages: Sequence[AssetStage],
    force: bool,
) -> list[str]:
    """The documents that are meant: one, or all that lack something; with `force` all."""
    only = None if document_id is None else [document_id]
    found = coverage_by_stage(connection, workspace_id, stages, only)
    return sorted(
        {row.key.document_id for rows in found.values() for row in rows if force or row.missing or only}
    )


def _forget(connection: Connection, key: DocumentKey, image_ids: Sequence[uuid.UUID] | None) -> int:
    """Drops vectors; returns how many flags fell, over all stages."""
    active = active_collections(connection)
    return sum(
        forget_vectors(
            connection,
            key,
            [active[name] for name in STAGE_COLLECTIONS[stage] if name in active],
            stage=stage,
            image_ids=image_ids,
        )
        for stage in REGENERATED
    )


def _followed(targets: dict[str, list[DocumentKey]], settings: Settings) -> dict[str, list[DocumentKey]]:
    """The targets with what has to go on from them: what is read or analysed again is embedded then."""
    in_use = assets_in_use(settings)
    followers = {INGEST_ASSET: in_use, "vision_analysis": ["understanding_embeddings"]}
    merged = {asset: set(targets.get(asset, ())) for asset in in_use}
    for asset, behind in followers.items():
        for follower in behind:
            if follower in merged:
                merged[follower] |= set(targets.get(asset, ()))
    return {asset: sorted(keys) for asset, keys in merged.items() if keys}
