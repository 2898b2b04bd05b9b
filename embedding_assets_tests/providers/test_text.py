"""Packing, checks of texts and vectors, and the local embedder."""

from __future__ import annotations

import itertools
import logging
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as examples
from hypothesis import strategies as st

import embedding_assets
from embedding_assets.encoders import text as text_module
from embedding_assets.encoders import wordllama_text
from embedding_assets.encoders.text import clean_texts, pack_by_tokens, unit_vectors
from embedding_assets.encoders.text_provider import open_text_embedder
from embedding_assets.encoders.wordllama_text import WordLlamaEmbedder
from embedding_assets.errors import FatalError, PermanentError, TransientError
from embedding_assets.settings import load_settings


@examples(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(tokens=st.lists(st.integers(0, 50)), texts=st.integers(1, 9), limit=st.integers(1, 60))
def test_packing_keeps_order_and_limits_and_leaves_nothing_out(
    tokens: list[int], texts: int, limit: int
) -> None:
    requests = pack_by_tokens(tokens, texts, limit)
    assert [position for request in requests for position in request] == list(range(len(tokens)))
    for request in requests:
        assert 1 <= len(request) <= texts
        assert sum(tokens[position] for position in request) <= limit or len(request) == 1


@examples(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(tokens=st.lists(st.integers(1, 10), min_size=1), limit=st.integers(10, 60))
def test_packing_starts_a_request_only_when_the_last_is_full(tokens: list[int], limit: int) -> None:
    requests = pack_by_tokens(tokens, 1000, limit)
    for request, following in itertools.pairwise(requests):
        assert sum(tokens[position] for position in request) + tokens[following[0]] > limit


def test_packing_into_requests_of_no_text_is_refused() -> None:
    with pytest.raises(ValueError, match="max_texts=0"):
        pack_by_tokens([1], 0, 10)


@pytest.mark.parametrize("blank", ["", "  ", "\n\t"])
def test_a_blank_text_is_refused_for_good(blank: str) -> None:
    with pytest.raises(PermanentError, match="text 2 of 2 is blank"):
        clean_texts(["oak", blank])


@pytest.mark.parametrize(
    ("rows", "error"),
    [
        ([[1.0, 0.0], [1.0, float("nan")]], TransientError),
        ([[1.0, 0.0], [1.0, float("inf")]], TransientError),
        ([[1.0, 0.0], [0.0, 0.0]], TransientError),
        ([[1.0, 0.0], [1.0]], TransientError),
        ([[1.0, 0.0], None], TransientError),
        ([[1.0, 0.0], ["a", "b"]], TransientError),
        ([None, None], TransientError),
        ([[], []], TransientError),
        ([[1.0, 0.0, 0.0], [1.0, 0.0, 0.0]], FatalError),
    ],
)
def test_wrong_vectors_are_refused(rows: list[Any], error: type[Exception]) -> None:
    with pytest.raises(error, match="stub"):
        unit_vectors(rows, 2, "stub")


def test_vectors_get_unit_length_in_float32() -> None:
    vectors = unit_vectors([[3.0, 4.0], [0.0, 1e-30]], 2, "stub")
    assert vectors.dtype == np.float32
    assert vectors == pytest.approx(np.array([[0.6, 0.8], [0.0, 1.0]]))


def run_fresh(code: str) -> None:
    """Runs code in a fresh interpreter with the package under test."""
    root = Path(embedding_assets.__file__).parent.parent
    environment = {**os.environ, "PYTHONPATH": str(root)}
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60, env=environment)


# -- local ---------------------------------------------------------------------------------------------------


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: Any, **kwargs: Any) -> Any:
        raise AssertionError("the local embedder opened a connection")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(wordllama_text, "_loaded", {})


@pytest.mark.usefixtures("no_network")
def test_the_local_embedder_needs_no_network_and_finds_what_is_meant() -> None:
    embedder = WordLlamaEmbedder("t1")
    products = [
        "Material: porcelain. Category: tile. Dimensions: 60x120 cm. Finish: matte.",
        "Material: oak. Category: flooring. Finish: oiled.",
        "Material: linen. Category: curtain. Colors: beige.",
    ]
    found = embedder.embed_documents(products)
    assert found.shape == (3, embedder.space.dimension)
    assert found.dtype == np.float32
    assert np.linalg.norm(found, axis=1) == pytest.approx(np.ones(3), abs=1e-6)
    queries = embedder.embed_queries(["porcelain tile 60x120cm", "wooden oak floor", "beige curtain fabric"])
    assert (queries @ found.T).argmax(axis=1).tolist() == [0, 1, 2]


def test_a_local_vector_depends_on_its_text_only() -> None:
    embedder = WordLlamaEmbedder()
    alone = embedder.embed_documents(["oak, matte"])
    among = embedder.embed_documents(["a", "oak, matte", "a much longer text " * 200])
    again = embedder.embed_queries(["oak, matte"])
    assert (alone[0] == among[1]).all()
    assert (alone == again).all()


def test_the_local_space_names_package_release_and_template() -> None:
    first, second = WordLlamaEmbedder("t1").space, WordLlamaEmbedder("t2").space
    assert first.dimension == 256
    assert first.weights.startswith("wordllama==")
    assert first.space_id != second.space_id
    assert first.space_id == WordLlamaEmbedder("t1").space.space_id


@pytest.mark.usefixtures("no_network")
def test_local_tokens_are_counted_and_packed() -> None:
    embedder = WordLlamaEmbedder()
    assert embedder.count_tokens("oak flooring") >= 2
    assert embedder.count_tokens("\ud800") >= 1
    assert embedder.pack(["oak"] * 5, 2) == [[0, 1], [2, 3], [4]]
    assert embedder.embed_documents([]).shape == (0, 256)


def test_an_over_long_text_is_cut_with_one_warning(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wordllama_text, "MAX_TEXT_TOKENS", 50)
    monkeypatch.setattr(text_module, "_cut_sources", set())
    embedder = WordLlamaEmbedder()
    with caplog.at_level(logging.WARNING):
        long = embedder.embed_documents(["oak " * 500, "oak " * 600])
    assert (long[0] == long[1]).all()
    assert [r.levelname for r in caplog.records if "is not embedded" in r.message] == ["WARNING"]


def test_odd_texts_are_embedded() -> None:
    vectors = WordLlamaEmbedder().embed_documents(["日本語タイル", "😀", "a\ud800b", "\x00", "½×¼"])
    assert np.isfinite(vectors).all()


def test_the_model_loads_once_and_logging_stays_as_it_was() -> None:
    code = """
import logging, threading
from embedding_assets.encoders.wordllama_text import WordLlamaEmbedder, _model
before = (list(logging.getLogger().handlers), logging.getLogger().level)
models = []
threads = [threading.Thread(target=lambda: models.append(_model())) for _ in range(4)]
[t.start() for t in threads]; [t.join() for t in threads]
assert len({id(m) for m in models}) == 1, models
assert (list(logging.getLogger().handlers), logging.getLogger().level) == before
import sys
assert "torch" not in sys.modules
"""
    run_fresh(code)


def test_the_settings_choose_the_provider() -> None:
    assert open_text_embedder(load_settings(), "t1").provider == "local"
    settings = load_settings(text_provider="voyage", voyage_api_key="k", voyage_dimension=512)
    embedder = open_text_embedder(settings, "t1")
    assert (embedder.provider, embedder.space.model, embedder.space.dimension) == (
        "voyage",
        "voyage-3.5",
        512,
    )
    assert embedder.space.template == "t1"


def test_importing_the_embedders_imports_no_client_and_no_model() -> None:
    code = """
import sys
import embedding_assets.encoders.text_provider, embedding_assets.encoders.voyage
import embedding_assets.encoders.wordllama_text, embedding_assets.analysis.qwen
heavy = {"voyageai", "wordllama", "openai", "torch", "tokenizers"} & set(sys.modules)
assert not heavy, heavy
"""
    run_fresh(code)
