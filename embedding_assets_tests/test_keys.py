"""Document keys, ids of documents made from names, and ids of images."""

from __future__ import annotations

import re
import uuid

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from embedding_assets.keys import DocumentKey, InvalidDocumentKey, document_id_for_name, image_id

PART = r"[A-Za-z0-9._-]{1,128}"
parts = st.from_regex(PART, fullmatch=True).filter(lambda p: p not in {".", ".."} and "..." not in p)
names = st.text(st.characters(), min_size=0, max_size=300)
"""Any text, lone surrogates too: file systems give them for names that are not UTF-8."""


@given(workspace=parts, document=parts)
def test_a_key_survives_being_written_and_read(workspace: str, document: str) -> None:
    key = DocumentKey(workspace, document)
    assert DocumentKey.parse(str(key)) == key
    assert str(key) == f"{workspace}/{document}"


@given(st.text(max_size=300))
def test_any_text_is_read_as_written_or_refused(text: str) -> None:
    try:
        key = DocumentKey.parse(text)
    except InvalidDocumentKey:
        return
    assert str(key) == text
    assert re.fullmatch(f"{PART}/{PART}", text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "/",
        "a",
        "a/",
        "/b",
        "a/b/c",
        "a//b",
        "a b/c",
        "a/b\n",
        "a/b\0",
        "a/é",
        "../b",
        "a/..",
        "./b",
        "a/.",
        "a/b...c",
        "a/...",
        "a/" + "x" * 129,
    ],
)
def test_keys_outside_the_grammar_are_refused(text: str) -> None:
    with pytest.raises(InvalidDocumentKey) as raised:
        DocumentKey.parse(text)
    assert raised.value.hint


def test_a_refused_key_is_shown_shortened() -> None:
    with pytest.raises(InvalidDocumentKey) as raised:
        DocumentKey("shop", "x" * 100_000)
    assert len(str(raised.value)) < 400


def test_keys_sort_by_workspace_and_document() -> None:
    keys = [DocumentKey("b", "a"), DocumentKey("a", "z"), DocumentKey("a", "b")]
    assert [str(k) for k in sorted(keys)] == ["a/b", "a/z", "b/a"]


@given(names)
@example("")
@example(".")
@example("..")
@example("...")
@example("a...b")
@example("ünïcödé.pdf")
@example("\udcff.pdf")
@example("\ud800")
@example("x" * 300 + ".pdf")
@example("." + "é" * 300)
@example("-.-")
def test_every_name_gives_a_valid_document_id(name: str) -> None:
    DocumentKey("shop", document_id_for_name(name))


@given(names, names)
@example("a b.pdf", "a-b.pdf")
@example("a b.pdf", "a  b.pdf")
@example("é", "è")
@example("A B", "a b")
@example("x" * 200 + "1", "x" * 200 + "2")
@example("\udcff", "?")
def test_different_names_give_different_ids_and_equal_ones_equal(one: str, other: str) -> None:
    assert (document_id_for_name(one) == document_id_for_name(other)) == (one == other)


def test_a_valid_name_stays_and_another_one_stays_readable() -> None:
    assert document_id_for_name("catalogue-2024.pdf") == "catalogue-2024.pdf"
    assert re.fullmatch(r"Tiles-2024-final-[0-9a-f]{8}\.pdf", document_id_for_name("Tiles 2024 (final).pdf"))


HASH = "ab" * 32


def test_an_image_id_is_derived_from_key_content_and_occurrence() -> None:
    key = DocumentKey("shop", "doc")
    same = image_id(key, HASH, 0)
    assert same == image_id(DocumentKey.parse("shop/doc"), HASH, 0)
    assert same.version == 5
    others = {
        image_id(key, HASH, 1),
        image_id(key, HASH[::-1], 0),
        image_id(DocumentKey("shop", "other"), HASH, 0),
        image_id(DocumentKey("rival", "doc"), HASH, 0),
    }
    assert len(others | {same}) == 5


def test_image_ids_never_change_between_versions() -> None:
    """Every stored vector hangs on this: if it fails, the change is wrong, not the test."""
    assert image_id(DocumentKey("shop", "doc"), HASH, 0) == uuid.UUID("aafecc5e-2faa-518e-bbca-99af8685fede")
