"""Loopback only: a proxy of the caller's environment must not come between a client and a stub."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from embedding_assets_tests.providers.stubs import ChatStub, VoyageStub


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def voyage() -> Iterator[VoyageStub]:
    with VoyageStub() as stub:
        yield stub


@pytest.fixture
def chat() -> Iterator[ChatStub]:
    with ChatStub() as stub:
        yield stub
