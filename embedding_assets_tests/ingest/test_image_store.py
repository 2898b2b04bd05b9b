"""The image store keeps bytes by content, completely or not at all."""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from embedding_assets.errors import InfrastructureError, PermanentError, TransientError
from embedding_assets.ingest.image_store import ImageStore

DATA = b"the bytes of an image" * 1000
KEY = "{0:.2}/{1}/{0}.jpg".format(hashlib.sha256(DATA).hexdigest(), hashlib.sha256(DATA).hexdigest()[2:4])


@pytest.fixture(params=["local", "file URL", "memory"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> ImageStore:
    roots = {
        "local": str(tmp_path / "images"),
        "file URL": f"file://{tmp_path}/with%20space",
        "memory": f"memory://images-{uuid.uuid4().hex}",
    }
    return ImageStore(roots[request.param])


def test_what_was_put_is_got_under_its_hash(store: ImageStore) -> None:
    assert not store.exists(KEY)
    assert store.put(DATA, "JPEG") == KEY
    assert store.exists(KEY)
    assert store.get(KEY) == DATA
    assert store.put(DATA, "JPEG") == KEY


def test_a_store_that_is_not_there_blames_no_image(tmp_path: Path) -> None:
    with pytest.raises(InfrastructureError, match="is not there"):
        ImageStore(str(tmp_path / "not mounted")).get(KEY)


def test_a_missing_image_is_permanent_and_says_what_to_do(store: ImageStore) -> None:
    store.put(b"another image", "PNG")
    with pytest.raises(PermanentError, match="is not in the image store") as caught:
        store.get(KEY)
    assert "ingest its document again" in (caught.value.hint or "")


@pytest.mark.parametrize(
    "key",
    [
        "../../etc/passwd",
        "/etc/passwd",
        KEY.replace("/", "//", 1),
        "ab/cd/../../x.jpg",
        KEY.upper(),
        KEY + "/..",
        "",
        KEY.replace(KEY[:2], "zz", 1),
        "00/00/" + KEY[6:],
    ],
)
def test_a_key_that_is_no_key_is_refused(store: ImageStore, key: str) -> None:
    for method in (store.get, store.exists):
        with pytest.raises(PermanentError, match="is no key of the image store"):
            method(key)


def test_an_unknown_format_is_refused(store: ImageStore) -> None:
    with pytest.raises(PermanentError, match="not 'PSD'"):
        store.put(DATA, "PSD")


def test_corrupt_bytes_are_noticed(tmp_path: Path) -> None:
    store = ImageStore(str(tmp_path))
    path = tmp_path / store.put(DATA, "JPEG")
    path.write_bytes(DATA[:-1] + b"?")
    with pytest.raises(PermanentError, match="is corrupt"):
        store.get(KEY)


def test_a_file_of_the_wrong_size_is_replaced_and_one_of_the_right_size_is_left(tmp_path: Path) -> None:
    store = ImageStore(str(tmp_path))
    path = tmp_path / store.put(DATA, "JPEG")
    path.write_bytes(DATA[:10])
    store.put(DATA, "JPEG")
    assert path.read_bytes() == DATA
    os.utime(path, ns=(1, 1))
    store.put(DATA, "JPEG")
    assert path.stat().st_mtime_ns == 1


def test_an_unwritable_store_blames_no_image(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(InfrastructureError, match="can't be written"):
        ImageStore(str(tmp_path / "file" / "images")).put(DATA, "JPEG")


def test_trouble_with_reading_is_transient(tmp_path: Path) -> None:
    (tmp_path / KEY).mkdir(parents=True)  # reading a folder as a file: an OSError that is not "missing"
    with pytest.raises(TransientError, match="can't be read"):
        ImageStore(str(tmp_path)).get(KEY)


def test_a_write_that_fails_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self: Path, data: bytes) -> int:
        with self.open("wb") as file:
            file.write(data[: len(data) // 2])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(InfrastructureError, match="No space left"):
        ImageStore(str(tmp_path)).put(DATA, "JPEG")
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def _put_many(root: str) -> None:
    store = ImageStore(root)
    for number in range(60):
        store.put(str(number).encode() * 50_000, "PNG")


def test_concurrent_writers_never_show_half_a_file(tmp_path: Path) -> None:
    """Every file that a reader sees under a final name, while four processes write, is complete."""
    context = multiprocessing.get_context("spawn")
    writers = [context.Process(target=_put_many, args=(str(tmp_path),)) for _ in range(4)]
    for writer in writers:
        writer.start()
    seen = 0
    while any(writer.is_alive() for writer in writers):
        for path in tmp_path.glob("??/??/[!.]*"):
            assert hashlib.sha256(path.read_bytes()).hexdigest() == path.stem
            seen += 1
    for writer in writers:
        writer.join()
        assert writer.exitcode == 0
    assert len(list(tmp_path.glob("??/??/[!.]*"))) == 60
    assert list(tmp_path.glob("??/??/.*")) == []
    assert seen > 0


def test_threads_may_put_the_same_image_at_once(tmp_path: Path) -> None:
    store = ImageStore(str(tmp_path))
    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(lambda _: store.put(DATA, "JPEG"), range(100))) == {KEY}
    assert store.get(KEY) == DATA
