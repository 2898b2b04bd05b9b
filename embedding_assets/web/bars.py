"""A stage's images as a bar and in words; the same for one document and for a whole workspace."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

from embedding_assets.web.labels import STAGE_LABELS, count, percent


class Counts(Protocol):
    """Images of a stage: those of a document (`Coverage`), or sums (`CoverageTotal`)."""

    @property
    def embedded(self) -> int:
        """Done."""

    @property
    def skipped(self) -> int:
        """Left out for a reason."""

    @property
    def rejected(self) -> int:
        """Failed for good."""

    @property
    def missing(self) -> int:
        """Still to do."""

    @property
    def ratio(self) -> float:
        """Embedded / (all - skipped), 0 to 1."""


@dataclass(frozen=True)
class Part:
    """A piece of a bar that is 100 units long."""

    kind: str
    start: float
    width: float


@dataclass(frozen=True)
class Bar:
    """Pieces from left to right; what they leave free is still to do."""

    parts: tuple[Part, ...]


@dataclass(frozen=True)
class StageView:
    """One stage as pages show it."""

    name: str
    label: str
    percent: str
    words: str
    bar: Bar
    speed: str = ""

    def as_dict(self) -> dict[str, Any]:
        """What a script needs to bring the bar up to date."""
        return {
            "percent": self.percent,
            "words": self.words,
            "parts": [{"kind": p.kind, "start": p.start, "width": p.width} for p in self.bar.parts],
        }


def stage_view(name: str, counts: Counts, speed: str = "") -> StageView:
    """How far a stage is.

    Args:
        name: of the stage.
        speed: how fast it goes and how long it takes, in words.
    """
    kinds = {"done": counts.embedded, "skipped": counts.skipped, "rejected": counts.rejected}
    total = sum(kinds.values()) + counts.missing
    parts = []
    start = 0.0
    for kind, images in kinds.items():
        if images:
            width = round(100 * images / total, 2)
            parts.append(Part(kind, round(start, 2), width))
            start += width
    wanted = total - counts.skipped
    words = [f"{count(counts.embedded)} of {count(wanted)} done" if wanted else "nothing to do"]
    words += [f"{count(counts.missing)} to do"] if counts.missing else []
    words += [f"{count(counts.rejected)} failed"] if counts.rejected else []
    words += [f"{count(counts.skipped)} left out"] if counts.skipped else []
    return StageView(
        name, STAGE_LABELS.get(name, name), percent(counts.ratio), ", ".join(words), Bar(tuple(parts)), speed
    )
