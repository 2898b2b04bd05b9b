"""Requests of runs over documents, in chunks: what sensors ask the daemon for.

A run covers a range of partitions (`defs.execution.partition_runs`), so that a thousand small documents become
tens of runs. Its run key holds the documents and their content; Dagster starts at most one run for a key, ever,
failed ones included.
"""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import dagster as dg
from dagster._core.storage.tags import RUN_KEY_TAG

from embedding_assets.defs.execution import partition_runs, partition_tags
from embedding_assets.defs.partial import done_check_keys
from embedding_assets.defs.partitions import register_partitions
from embedding_assets.keys import DocumentKey

REQUESTED_BY_TAG = "embedding_assets/requested_by"
DOCUMENTS_TAG = "embedding_assets/documents"


@dataclass(frozen=True)
class DocumentRun:
    """A run to be requested: its documents, side by side in the order of partitions, and its key."""

    keys: tuple[DocumentKey, ...]
    run_key: str


def document_runs(
    instance: dg.DagsterInstance, contents: Mapping[DocumentKey, str], documents_per_run: int
) -> list[DocumentRun]:
    """Registers the documents' partitions, and groups the documents into runs.

    Args:
        contents: for each document what makes the request what it is: its content hash, say. A run's key is made
            of its documents and these.
    """
    register_partitions(instance, contents)
    chunks = partition_runs(instance, list(contents), documents_per_run)
    return [DocumentRun(tuple(chunk), run_key_of(chunk, contents)) for chunk in chunks]


def run_key_of(chunk: Sequence[DocumentKey], contents: Mapping[DocumentKey, str]) -> str:
    """`workspace/document:<content>` for one document; for more, the first, their number and a digest of all."""
    if len(chunk) == 1:
        return f"{chunk[0]}:{contents[chunk[0]]}"
    digest = hashlib.sha256("".join(f"{key}:{contents[key]}\n" for key in chunk).encode()).hexdigest()
    return f"{chunk[0]}+{len(chunk) - 1}:{digest}"


def run_request(
    run: DocumentRun,
    job: str,
    assets: Iterable[str],
    *,
    requested_by: str,
    run_config: dict[str, object] | None = None,
) -> dg.RunRequest:
    """The request of a run of some of a job's assets."""
    chosen = list(assets)
    return dg.RunRequest(
        run_key=run.run_key,
        job_name=job,
        asset_selection=[dg.AssetKey(asset) for asset in chosen],
        asset_check_keys=done_check_keys(chosen),
        run_config=run_config or {},
        tags={
            **partition_tags(run.keys),
            REQUESTED_BY_TAG: requested_by,
            DOCUMENTS_TAG: str(len(run.keys)),
        },
    )


def existing_run_keys(instance: dg.DagsterInstance, run_keys: Sequence[str]) -> set[str]:
    """Those of the keys that a run was started for."""
    if not run_keys:
        return set()
    runs = instance.get_runs(filters=dg.RunsFilter(tags={RUN_KEY_TAG: list(run_keys)}))
    return {run.tags[RUN_KEY_TAG] for run in runs}
