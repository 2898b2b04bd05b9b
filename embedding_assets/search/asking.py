"""Which arms a request asks, with what weight and by which query vector; and why an arm is left out."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from embedding_assets.encoders.aspects import ASPECTS
from embedding_assets.encoders.protocol import Vectors
from embedding_assets.errors import EmbeddingAssetsError, ImageRejected, PermanentError, StoreUnavailable
from embedding_assets.search.arms import ARMS, LOOKS_ARMS, TEXT_ARMS
from embedding_assets.search.calibration import Scale
from embedding_assets.search.profiles import (
    AUTO,
    BALANCED,
    PROFILES,
    TOGETHER,
    QueryWords,
    choose_profile,
    looks_of,
    read_query,
)
from embedding_assets.search.queries import QueryEncoder
from embedding_assets.search.request import SearchRequest
from embedding_assets.search.snapshot import Snapshot, SnapshotKeeper
from embedding_assets.store.search import ArmQuery

logger = logging.getLogger(__name__)


@dataclass
class Arm:
    """One arm on its way through a search.

    Attributes:
        name: its name.
        configured: its weight in the profile.
        weight: its weight here, before those of arms that are left out are shared among the others.
        left_out: why it is left out; "" while it is not.
        query: what is asked; None where it is left out.
        offset: calibrated score = |query.vector| * cosine - offset.
        encode_ms: milliseconds that its query vector took, its calibration included.
    """

    name: str
    configured: float
    weight: float
    left_out: str = ""
    query: ArmQuery | None = None
    offset: float = 0.0
    encode_ms: float = 0.0


@dataclass(frozen=True)
class Choice:
    """The profile of a request, why it was chosen, and the arms with its weights."""

    profile: str
    reason: str
    arms: list[Arm]

    @property
    def asked(self) -> list[Arm]:
        """Arms that have a query vector."""
        return [arm for arm in self.arms if arm.query is not None]

    def arm(self, name: str) -> Arm:
        """The arm of a name."""
        return next(arm for arm in self.arms if arm.name == name)

    def refuse(self) -> PermanentError:
        """What to raise where no arm can be asked."""
        reasons = "; ".join(f"{arm.name}: {arm.left_out}" for arm in self.arms if arm.configured)
        return PermanentError(
            f"no arm of the search can be asked ({reasons})",
            hint="`embedding-assets coverage` shows what is embedded, `embedding-assets doctor` checks models and keys",
        )


def choose(request: SearchRequest) -> Choice:
    """Profile and arms of a request; by `auto`, aspects that the text says nothing of are left out."""
    if request.weights is not None:
        total = sum(request.weights.values())
        return _choice("custom", "weights were given", {a: request.weights.get(a, 0.0) / total for a in ARMS})
    if request.profile != AUTO:
        return _choice(request.profile, "asked for", PROFILES[request.profile])
    text = request.query_text()
    if text is None:
        return _choice(BALANCED, "the query is an image", PROFILES[BALANCED])
    words = read_query(text)
    profile, reason = choose_profile(words)
    choice = _choice(profile, reason, PROFILES[profile])
    if request.image is None and request.image_id is None:
        _leave_unsaid(choice, words, looks_of(text))
    return choice


def _choice(profile: str, reason: str, weights: Mapping[str, float]) -> Choice:
    return Choice(
        profile,
        reason,
        [
            Arm(name, weights[name], weights[name], "" if weights[name] else "its weight is 0")
            for name in ARMS
        ],
    )


def _leave_unsaid(choice: Choice, words: QueryWords, looks: str) -> None:
    """Leaves out what a text says nothing of: its vector there would be noise.

    An aspect's weight goes to the visual arm, which sees the whole picture. A text that names no aspect by words of
    the vocabulary may still mean one: then all stay. What is left out where a text is of specifications only goes to
    the text arm, which finds them exactly.
    """
    visual, said = choice.arm("visual"), choice.arm("text")
    for arm in choice.arms:
        if arm.name in LOOKS_ARMS and not looks:
            arm.left_out = "the text names nothing that a picture shows; its weight goes to text"
            said.weight += arm.weight
            arm.weight = 0.0
        elif arm.name in ASPECTS and words.aspects and arm.name not in words.aspects:
            arm.left_out = f"the text says nothing of {arm.name}; its weight goes to visual"
            visual.weight += arm.weight
            arm.weight = 0.0
    if words.aspects and visual.weight:
        visual.weight += TOGETHER * (words.attributes - 1)


def ask(
    request: SearchRequest,
    choice: Choice,
    snapshot: Snapshot,
    own: Mapping[str, Vectors],
    queries: QueryEncoder,
    keeper: SnapshotKeeper,
) -> list[str]:
    """Gives each arm its query vector, or the reason why it is left out.

    Args:
        own: vectors, by arm, of the image that is searched by.
        queries: what embeds.
        keeper: what calibrates.

    Returns:
        What an operator should know.

    Raises:
        ImageRejected: the image can't be decoded.
        StoreUnavailable: the database is gone.
    """
    text = request.query_text()
    looks = (looks_of(text) or text) if text else None
    visual: Vectors | None = None
    notes: list[str] = []
    for arm in choice.arms:
        if arm.left_out:
            continue
        collection = snapshot.collections.get(arm.name)
        if collection is None:
            arm.left_out = "there are no vectors of this kind yet"
            continue
        started = time.perf_counter()
        try:
            queries.check(arm.name, collection)
            vectors: dict[str, Vectors] = {}
            wanted = text if arm.name in TEXT_ARMS else looks
            if wanted:
                vectors["text"] = queries.of_text(arm.name, collection, wanted)
            if request.image is not None and arm.name in LOOKS_ARMS:
                visual = queries.of_image(request.image) if visual is None else visual
                is_visual = arm.name == "visual"
                vectors["image"] = visual if is_visual else queries.aspect_of_image(collection, visual)
            elif arm.name in own:
                vectors["image"] = own[arm.name]
            if not vectors:
                arm.left_out = _nothing_to_ask(arm.name, request)
                continue
            scales = {kind: keeper.scale(snapshot, arm.name, kind) for kind in vectors}
        except (StoreUnavailable, ImageRejected):
            raise
        except EmbeddingAssetsError as error:
            logger.warning("search: arm %s is left out: %s", arm.name, error)
            arm.left_out = error.message
            continue
        notes += [note for _, note in scales.values() if note]
        vector, arm.offset = combine([(vectors[kind], scale) for kind, (scale, _) in scales.items()])
        arm.encode_ms = 1000 * (time.perf_counter() - started)
        arm.query = ArmQuery(arm.name, collection, vector, snapshot.indexes.get(collection.table))
    return notes


def combine(asked: Sequence[tuple[Vectors, Scale]]) -> tuple[Vectors, float]:
    """One vector that asks for several at once: calibrated scores are linear in the cosines, and so is their mean.

    Args:
        asked: unit query vectors of one space, each with its scale.

    Returns:
        q and o, such that |q| cos(q, v) - o is the mean of the calibrated scores of v for each of the queries.
    """
    share = 1 / len(asked)
    vector = np.sum([share / scale.span * vector for vector, scale in asked], axis=0)
    return np.asarray(vector, dtype=np.float32), sum(share * scale.low / scale.span for _, scale in asked)


def _nothing_to_ask(arm: str, request: SearchRequest) -> str:
    if request.image_id is not None:
        return "the image has no vector of this kind"
    return "an uploaded image has no text" if arm in TEXT_ARMS else "there is nothing to ask"
