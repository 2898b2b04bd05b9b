"""Weights that can't be had: the error names the setting and the way out, and comes at once."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
import torch
from safetensors.torch import load_file, save_file

from embedding_assets.encoders import hub
from embedding_assets.encoders.model_source import HUB_WEIGHTS, find_model
from embedding_assets.encoders.slig import OpenClipEncoder
from embedding_assets.errors import ErrorClass, ModelUnavailable
from embedding_assets_tests.encoders.conftest import change_config, copy_of, decode


def failure(model: str, pretrained: str = "") -> ModelUnavailable:
    with pytest.raises(ModelUnavailable) as caught:
        OpenClipEncoder(model, pretrained, decode=decode, device="cpu").load(tokenizer=True)
    assert caught.value.error_class is ErrorClass.FATAL
    assert "EMBEDDING_ASSETS_SLIG_" in caught.value.message
    assert caught.value.hint
    assert "\n" not in caught.value.message
    return caught.value


class RefusedError(Exception):
    """Stands for an HTTP library's connection error."""


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[str]:
    """A hub that can't be reached and a cache that is empty; lists what was asked of the hub."""
    asked: list[str] = []

    def refuse(self: Any, repo: str, **_: Any) -> Any:
        asked.append(repo)
        raise RefusedError("[Errno -2] Name or service not known")

    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", refuse)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    return asked


def test_no_network_is_found_out_with_one_question_and_names_the_offline_choices(
    no_network: list[str],
) -> None:
    error = failure("ViT-B-16-SigLIP2-512", "webli")
    # one, where huggingface_hub by itself would ask six times over 23 s, for each of several files
    assert no_network == ["timm/ViT-B-16-SigLIP2-512"]
    assert "EMBEDDING_ASSETS_SLIG_PRETRAINED=webli" in error.message
    assert "local-dir:<folder>" in str(error.hint)
    assert "--demo" in str(error.hint)


def test_offline_mode_asks_the_hub_nothing(no_network: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    error = failure("hf-hub:timm/ViT-B-16-SigLIP2-512")
    assert no_network == []
    assert "HF_HUB_OFFLINE" in error.message


def test_an_unknown_model_lists_close_names() -> None:
    error = failure("vit-b-16-siglip2-521", "webli")
    assert "did you mean ViT-B-16-SigLIP2-512" in error.message


def test_an_unknown_tag_lists_the_tags_that_there_are() -> None:
    error = failure("ViT-B-32", "laion2b_s34b_b79")
    assert "EMBEDDING_ASSETS_SLIG_PRETRAINED=laion2b_s34b_b79" in error.message
    assert "did you mean laion2b_s34b_b79k" in error.message


def test_random_weights_are_not_given_for_a_word_that_is_nearly_random() -> None:
    assert "no weights of ViT-B-32 have this tag" in failure("ViT-B-32", "Random").message
    failure("ViT-B-32", "")


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    assert str(tmp_path / "nowhere") in failure(f"local-dir:{tmp_path / 'nowhere'}").message


def test_a_folder_without_configuration_is_refused(tmp_path: Path) -> None:
    assert "open_clip_config.json" in failure(f"local-dir:{tmp_path}").message


@pytest.mark.parametrize("content", ["{", "[]", '{"model_cfg": {}}', '{"preprocess_cfg": {}}'])
def test_a_broken_configuration_is_refused(tiny_model: Path, tmp_path: Path, content: str) -> None:
    folder = copy_of(tiny_model, tmp_path / "broken")
    (folder / "open_clip_config.json").write_text(content)
    assert "is no open_clip configuration" in failure(f"local-dir:{folder}").message


@pytest.mark.parametrize("values", [{"resize_mode": "stretch"}, {"mean": [0.5, 0.5]}, {"std": "wide"}])
def test_preprocessing_that_makes_no_sense_is_refused(
    tiny_model: Path, tmp_path: Path, values: dict[str, Any]
) -> None:
    folder = copy_of(tiny_model, tmp_path / "odd")
    change_config(folder, "preprocess_cfg", **values)
    assert "preprocess_cfg can't be used" in failure(f"local-dir:{folder}").message


@pytest.mark.parametrize("size", [0, 4, 1000])
def test_truncated_weights_are_refused(tiny_model: Path, tmp_path: Path, size: int) -> None:
    folder = copy_of(tiny_model, tmp_path / "truncated")
    weights = folder / "open_clip_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:size])
    assert "can't be loaded" in failure(f"local-dir:{folder}").message


def test_weights_of_another_shape_are_refused(tiny_model: Path, tmp_path: Path) -> None:
    folder = copy_of(tiny_model, tmp_path / "reshaped")
    change_config(folder, "model_cfg", embed_dim=25)
    assert "size mismatch" in failure(f"local-dir:{folder}").message


def test_weights_that_are_not_numbers_are_refused_before_any_image_is_blamed(
    tiny_model: Path, tmp_path: Path
) -> None:
    folder = copy_of(tiny_model, tmp_path / "nan")
    weights = load_file(folder / "open_clip_model.safetensors")
    weights["visual.proj"][0, 0] = torch.nan
    save_file(weights, folder / "open_clip_model.safetensors")
    assert "not finite (visual.proj)" in failure(f"local-dir:{folder}").message


def test_missing_tokenizer_files_are_reported_without_asking_the_hub(
    tiny_model: Path, tmp_path: Path, no_network: list[str]
) -> None:
    folder = copy_of(tiny_model, tmp_path / "mute")
    config = json.loads((folder / "open_clip_config.json").read_text())
    config["model_cfg"]["text_cfg"]["hf_tokenizer_name"] = "timm/ViT-B-16-SigLIP2-512"
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    error = failure(f"local-dir:{folder}")
    assert f"the tokenizer can't be loaded from {folder}" in error.message
    assert "AttributeError" not in error.message
    assert no_network == []


def test_tokenizer_files_in_the_folder_are_enough(
    tiny_model: Path, tmp_path: Path, no_network: list[str]
) -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    folder = copy_of(tiny_model, tmp_path / "words")
    words = Tokenizer(models.WordLevel({"<pad>": 0, "<unk>": 1, "oak": 2, "walnut": 3}, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=words, pad_token="<pad>", unk_token="<unk>").save_pretrained(
        folder
    )
    config = json.loads((folder / "open_clip_config.json").read_text())
    config["model_cfg"]["text_cfg"]["hf_tokenizer_name"] = "somebody/elsewhere"
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    vectors = OpenClipEncoder(f"local-dir:{folder}", decode=decode, device="cpu").encode_texts(
        ["oak", "walnut"]
    )
    assert vectors.shape == (2, 24)
    assert float(vectors[0] @ vectors[1]) < 0.9999
    assert no_network == []


# -- the hub -----------------------------------------------------------------------------------------------------


def cache_like_the_hubs(root: Path, repo: str, files: dict[str, bytes], hashed: bool = True) -> Path:
    """Lays files out as huggingface_hub's cache does: blobs named by hash, snapshots linking to them."""
    import hashlib

    folder = root / f"models--{repo.replace('/', '--')}"
    snapshot = folder / "snapshots" / ("0123456789abcdef" * 3)[:40]
    snapshot.mkdir(parents=True)
    (folder / "refs").mkdir()
    (folder / "refs" / "main").write_text(snapshot.name)
    (folder / "blobs").mkdir()
    for name, content in files.items():
        blob = folder / "blobs" / hashlib.sha256(content).hexdigest()
        blob.write_bytes(content)
        (snapshot / name).symlink_to(blob)
    return snapshot


def test_cached_weights_are_used_without_a_question_and_known_by_their_hash(
    tiny_model: Path, tmp_path: Path, no_network: list[str]
) -> None:
    files = {path.name: path.read_bytes() for path in tiny_model.iterdir()}
    cache_like_the_hubs(tmp_path / "cache", "maker/tiny", files)
    cached = OpenClipEncoder("hf-hub:maker/tiny", decode=decode, device="cpu")
    local = OpenClipEncoder(f"local-dir:{tiny_model}", decode=decode, device="cpu")
    assert cached.space.weights == local.space.weights
    assert cached.space.label == "SLIG hf-hub maker/tiny"
    assert cached.encode_texts(["oak"]).shape == (1, 24)
    assert no_network == []


def test_a_hub_repository_without_weights_never_falls_back_to_random_ones(
    tiny_model: Path, tmp_path: Path, no_network: list[str]
) -> None:
    config = {"open_clip_config.json": (tiny_model / "open_clip_config.json").read_bytes()}
    cache_like_the_hubs(tmp_path / "cache", "maker/weightless", config)
    assert "maker/weightless can't be downloaded" in failure("hf-hub:maker/weightless").message
    assert no_network == ["maker/weightless"]


def test_a_download_takes_the_best_file_that_the_repository_has_and_is_logged(
    no_network: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    class Info:
        siblings = (type("File", (), {"rfilename": "open_clip_pytorch_model.bin"})(),)

    fetched = tmp_path / "open_clip_pytorch_model.bin"
    fetched.write_bytes(b"0" * 1000)
    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.setenv("HF_TOKEN", "")
    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", lambda *_, **__: Info)
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", lambda repo, name: str(tmp_path / name))
    with caplog.at_level(logging.DEBUG):
        found = hub.fetch_file("maker/model", HUB_WEIGHTS, setting="NAME=value", token="hf_secret")
    assert found == fetched
    assert "downloading open_clip_pytorch_model.bin of https://huggingface.co/maker/model" in caplog.text
    import os

    assert os.environ["HF_TOKEN"] == "hf_secret"
    assert "hf_secret" not in caplog.text


def test_a_token_that_is_set_already_is_kept(no_network: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    import os

    monkeypatch.setenv("HF_TOKEN", "theirs")
    with pytest.raises(ModelUnavailable):
        find_model("hf-hub:maker/tiny", "", token="ours")
    assert os.environ["HF_TOKEN"] == "theirs"


@pytest.mark.parametrize(
    ("status", "code", "expected"),
    [
        (403, "GatedRepo", "is gated"),
        (404, "RepoNotFound", "has no repository"),
        (503, "", "can't be downloaded"),
    ],
)
def test_what_the_hub_answers_is_put_into_words(
    status: int, code: str, expected: str, no_network: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import errors

    kind = {"GatedRepo": errors.GatedRepoError, "RepoNotFound": errors.RepositoryNotFoundError}.get(
        code, RefusedError
    )
    error = kind.__new__(kind)  # their constructors want a response of whichever HTTP library is in use
    Exception.__init__(error, f"{status} from the hub")

    def answer(*_: Any, **__: Any) -> Any:
        raise error

    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", answer)
    assert expected in failure("hf-hub:maker/gated").message
