"""How the work of a run is cut into steps."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from embedding_assets.keys import DocumentKey

STEP_SECONDS = 5.0
"""How long a step should take: a step costs Dagster about 0.1 s, so that is some 2 %."""

UNKNOWN_SPEED_BATCHES = 5
"""Batches in a step before any speed was measured."""

MAX_STEP_IMAGES = 10_000
"""No step takes more images, however fast the device: a step's ids travel as one value."""


@dataclass(frozen=True)
class Step:
    """The images that one mapped op embeds; all of one workspace, perhaps of several documents."""

    workspace_id: str
    image_ids: tuple[uuid.UUID, ...]


def batches_per_step(configured: int, batch_size: int, images_per_second: float | None) -> int:
    """Batches that one step takes.

    Args:
        configured: the setting; 0 to go by the speed.
        batch_size: images in a batch.
        images_per_second: measured speed; None where none was measured yet.
    """
    most = max(1, MAX_STEP_IMAGES // batch_size)
    if configured:
        return min(configured, most)
    if images_per_second is None:
        return min(UNKNOWN_SPEED_BATCHES, most)
    return max(1, min(most, round(STEP_SECONDS * images_per_second / batch_size)))


def plan_steps(
    pending: Iterable[tuple[DocumentKey, Sequence[uuid.UUID]]], batch_size: int, batches: int
) -> list[Step]:
    """Cuts the pending images of several documents into steps of full batches.

    Batches run across documents, so that a chunk of small documents makes full batches; they do not run
    across workspaces.
    """
    by_workspace: dict[str, list[uuid.UUID]] = {}
    for key, ids in pending:
        by_workspace.setdefault(key.workspace_id, []).extend(ids)
    size = batch_size * batches
    return [
        Step(workspace_id, tuple(ids[start : start + size]))
        for workspace_id, ids in by_workspace.items()
        for start in range(0, len(ids), size)
    ]
