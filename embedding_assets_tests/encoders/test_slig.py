from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pytest
import torch
from open_clip.transform import PreprocessCfg, image_transform_v2

from embedding_assets.encoders import loading
from embedding_assets.encoders.protocol import Encoder, Vectors
from embedding_assets.encoders.slig import OpenClipEncoder, unit_rows
from embedding_assets.errors import (
    FatalError,
    ImageRejected,
    InfrastructureError,
    ModelUnavailable,
    PermanentError,
    SettingsError,
    TooLargeError,
)
from embedding_assets.settings import Settings
from embedding_assets_tests.encoders.conftest import (
    TINY_CONFIG,
    TINY_PREPROCESSING,
    change_config,
    copy_of,
    decode,
    picture,
    png,
)

ROOT = Path(__file__).parents[2]


@pytest.fixture
def encoder(tiny_model: Path) -> OpenClipEncoder:
    return OpenClipEncoder(f"local-dir:{tiny_model}", decode=decode, device="cpu")


@pytest.fixture(scope="module")
def images() -> list[bytes]:
    sizes = [(64, 64), (301, 97), (80, 333), (127, 129), (200, 150), (66, 65), (500, 377)]
    return [png(picture(*size, seed=seed)) for seed, size in enumerate(sizes)]


def encode(encoder: OpenClipEncoder, images: list[bytes]) -> Vectors:
    return encoder.encode_images([encoder.prepare(data) for data in images])


def with_network(encoder: OpenClipEncoder, **methods: Callable[..., Any]) -> OpenClipEncoder:
    """The encoder, its network's methods replaced: what a failing device looks like from outside."""
    loaded = encoder._loaded()

    class Network:
        visual = loaded.network.visual
        encode_image = staticmethod(methods.get("encode_image", loaded.network.encode_image))
        encode_text = staticmethod(methods.get("encode_text", loaded.network.encode_text))

    encoder._model = dataclasses.replace(loaded, network=Network())
    return encoder


def raising(error: Exception) -> Callable[..., Any]:
    def method(*_: Any) -> Any:
        raise error

    return method


def test_image_vectors_are_float32_contiguous_and_of_unit_length(
    encoder: OpenClipEncoder, images: list[bytes]
) -> None:
    vectors = encode(encoder, images)
    assert vectors.dtype == np.float32
    assert vectors.shape == (len(images), encoder.space.dimension) == (7, 24)
    assert vectors.flags.c_contiguous
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1.0, atol=1e-6)


def test_vectors_are_open_clips_own(encoder: OpenClipEncoder, tiny_model: Path, images: list[bytes]) -> None:
    network = open_clip.create_model(f"local-dir:{tiny_model}").eval()
    transform = image_transform_v2(PreprocessCfg(size=32, **TINY_PREPROCESSING), is_train=False)
    with torch.inference_mode():
        pixels = torch.stack([transform(decode(data)) for data in images])
        theirs = network.encode_image(pixels, normalize=True).numpy()
        texts = network.encode_text(
            open_clip.get_tokenizer(f"local-dir:{tiny_model}")(["oak"]), normalize=True
        )
    assert (encode(encoder, images) * theirs).sum(axis=1).min() > 0.9999
    assert (encoder.encode_texts(["oak"]) * texts.numpy()).sum() > 0.99999


def test_an_image_gets_the_same_vector_alone_and_in_a_batch(
    encoder: OpenClipEncoder, images: list[bytes]
) -> None:
    together = encode(encoder, images)
    alone = np.concatenate([encode(encoder, [data]) for data in images])
    assert (together * alone).sum(axis=1).min() > 0.9999


def test_texts_get_unit_vectors_of_the_same_space_in_order_over_several_calls(
    encoder: OpenClipEncoder,
) -> None:
    texts = [f"oak veneer number {number}" for number in range(150)]
    vectors = encoder.encode_texts(texts)
    assert vectors.shape == (150, 24)
    assert vectors.dtype == np.float32
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1.0, atol=1e-6)
    assert np.allclose(vectors[149], encoder.encode_texts([texts[149]])[0], atol=1e-5)


def test_a_text_longer_than_the_context_is_cut_not_refused(encoder: OpenClipEncoder) -> None:
    assert encoder.encode_texts(["matt white wall tile " * 200]).shape == (1, 24)


def test_nothing_in_gives_nothing_out(encoder: OpenClipEncoder) -> None:
    assert encoder.encode_images([]).shape == (0, 24)
    assert encoder.encode_texts([]).shape == (0, 24)


@pytest.mark.parametrize("text", ["", "  \n"])
def test_an_empty_text_is_a_permanent_error_that_says_which(encoder: OpenClipEncoder, text: str) -> None:
    with pytest.raises(PermanentError, match="text 1 of 2 is empty"):
        encoder.encode_texts(["oak", text])


def test_an_image_that_the_decoder_rejects_is_rejected(tiny_model: Path) -> None:
    def reject(data: bytes) -> Any:
        raise ImageRejected("truncated")

    with pytest.raises(ImageRejected, match="truncated"):
        OpenClipEncoder(f"local-dir:{tiny_model}", decode=reject, device="cpu").prepare(b"")


def test_images_are_prepared_by_several_threads_at_once(
    encoder: OpenClipEncoder, images: list[bytes]
) -> None:
    expected = [encoder.prepare(data) for data in images]
    found: dict[int, Any] = {}
    threads = [
        threading.Thread(target=lambda n=number: found.__setitem__(n, encoder.prepare(images[n % 7])))
        for number in range(28)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(torch.equal(found[number], expected[number % 7]) for number in range(28))


# -- loading -----------------------------------------------------------------------------------------------------


def test_threads_and_encoders_that_ask_at_once_share_one_load(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = copy_of(tiny_model, tmp_path / "shared")
    builds: list[str] = []
    build = loading._build

    def counted(source: Any) -> Any:
        builds.append(source.open_clip_name)
        return build(source)

    monkeypatch.setattr(loading, "_build", counted)
    encoders = [OpenClipEncoder(f"local-dir:{folder}", decode=decode, device="cpu") for _ in range(2)]
    at_once = threading.Barrier(8, timeout=30)
    spaces = []

    def ask(number: int) -> None:
        at_once.wait()
        spaces.append(encoders[number % 2].space.space_id)

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(builds) == 1
    assert len(spaces) == 8
    assert len(set(spaces)) == 1


def test_an_encoder_that_is_only_made_loads_nothing() -> None:
    OpenClipEncoder("local-dir:/nowhere", decode=decode)


def test_a_failed_load_is_tried_again(tiny_model: Path, tmp_path: Path) -> None:
    encoder = OpenClipEncoder(f"local-dir:{tmp_path / 'later'}", decode=decode, device="cpu")
    with pytest.raises(ModelUnavailable):
        encoder.load()
    copy_of(tiny_model, tmp_path / "later")
    encoder.load(tokenizer=True)
    assert encoder.dimension == 24


def test_importing_the_encoders_imports_no_model_library() -> None:
    code = (
        "import sys, embedding_assets.encoders, embedding_assets.encoders.slig, "
        "embedding_assets.encoders.decode_ahead\n"
        "loaded = {'torch', 'torchvision', 'open_clip', 'transformers', 'huggingface_hub', 'dagster'}\n"
        "sys.exit(', '.join(loaded & set(sys.modules)) or 0)"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=ROOT
    )
    assert result.returncode == 0, result.stderr


def test_it_is_an_encoder(encoder: OpenClipEncoder) -> None:
    takes_any_encoder: Encoder = encoder
    assert takes_any_encoder.space.dimension == 24


# -- the embedding space -----------------------------------------------------------------------------------------


def space_id(folder: Path) -> str:
    return OpenClipEncoder(f"local-dir:{folder}", decode=decode, device="cpu").space.space_id


def test_a_copied_or_renamed_folder_is_the_same_space(tiny_model: Path, tmp_path: Path) -> None:
    assert space_id(copy_of(tiny_model, tmp_path / "another name")) == space_id(tiny_model)


def test_one_changed_byte_of_the_weights_is_another_space(tiny_model: Path, tmp_path: Path) -> None:
    folder = copy_of(tiny_model, tmp_path / "changed")
    before = space_id(folder)
    weights = folder / "open_clip_model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-4] ^= 1  # the lowest bit of the last float32
    weights.write_bytes(bytes(content))
    assert space_id(folder) != before


@pytest.mark.parametrize(
    ("part", "values"),
    [
        ("preprocess_cfg", {"mean": [0.5, 0.4, 0.31]}),
        ("preprocess_cfg", {"resize_mode": "shortest"}),
        ("preprocess_cfg", {"interpolation": "bilinear"}),
        ("model_cfg", {"quick_gelu": True}),
    ],
)
def test_changed_preprocessing_or_architecture_is_another_space(
    tiny_model: Path, tmp_path: Path, part: str, values: dict[str, Any]
) -> None:
    folder = copy_of(tiny_model, tmp_path / "changed")
    change_config(folder, part, **values)
    assert space_id(folder) != space_id(tiny_model)


def test_the_space_says_what_it_covers(encoder: OpenClipEncoder) -> None:
    space = encoder.space
    assert space.weights.startswith("sha256:")
    assert space.preprocessing.startswith("32x32 squash bicubic; mean 0.5,0.4,0.3; std 0.5,0.25,0.2; exif")
    assert space.label == "SLIG local-dir tiny"


def test_random_weights_come_from_their_seed_and_say_so(monkeypatch: pytest.MonkeyPatch) -> None:
    # a model that open_clip knows by name, only smaller than those that it comes with
    monkeypatch.setitem(open_clip.factory._MODEL_CONFIGS, "Tiny", TINY_CONFIG)

    def make(pretrained: str) -> OpenClipEncoder:
        return OpenClipEncoder("Tiny", pretrained, decode=decode, device="cpu")

    first, again, other = make("random"), make("random:seed=0"), make("random:seed=1")
    assert first.space.weights == again.space.weights == "random:seed=0"
    assert first.space.space_id == again.space.space_id != other.space.space_id
    assert "random weights" in first.space.label
    names = [next(iter(e._loaded().network.visual.parameters())) for e in (first, again, other)]
    assert torch.equal(names[0], names[1])
    assert not torch.equal(names[0], names[2])


def test_a_folder_never_falls_back_to_random_weights(tiny_model: Path, tmp_path: Path) -> None:
    folder = copy_of(tiny_model, tmp_path / "empty")
    (folder / "open_clip_model.safetensors").unlink()
    with pytest.raises(ModelUnavailable, match="holds no weights"):
        OpenClipEncoder(f"local-dir:{folder}", "random", decode=decode, device="cpu").load()


# -- settings ----------------------------------------------------------------------------------------------------


def test_the_settings_choose_the_model(tiny_model: Path) -> None:
    settings = Settings(slig_model=f"local-dir:{tiny_model}", slig_device="cpu", slig_dtype="float32")
    encoder = OpenClipEncoder.from_settings(settings, decode=decode)
    assert encoder.space.label == "SLIG local-dir tiny"
    assert encoder.precision.dtype == "float32"
    assert "EMBEDDING_ASSETS_SLIG_DTYPE" in encoder.precision.reason


def test_the_demo_model_says_what_it_is(tiny_model: Path) -> None:
    settings = Settings(slig_model="demo", slig_device="cpu")
    encoder = OpenClipEncoder.from_settings(settings, decode=decode, demo_model=lambda: tiny_model)
    assert encoder.space.label == "demo model (drawn swatches only)"
    assert str(encoder.space).startswith("demo model (drawn swatches only)")
    assert encoder.space.space_id == space_id(tiny_model)


def test_the_demo_model_has_to_be_there() -> None:
    def missing() -> Path:
        raise FileNotFoundError("reinstall the package")

    settings = Settings(slig_model="demo")
    with pytest.raises(ModelUnavailable, match="reinstall the package"):
        OpenClipEncoder.from_settings(settings, decode=decode, demo_model=missing)
    with pytest.raises(SettingsError, match="SLIG_MODEL=demo"):
        OpenClipEncoder.from_settings(settings, decode=decode)


# -- number formats ----------------------------------------------------------------------------------------------


def test_bfloat16_by_name_is_honoured_and_stays_close_for_images_and_texts(
    tiny_model: Path, encoder: OpenClipEncoder, images: list[bytes]
) -> None:
    short = OpenClipEncoder(f"local-dir:{tiny_model}", decode=decode, device="cpu", dtype="bfloat16")
    assert short.precision.dtype == "bfloat16"
    vectors = encode(short, images)
    assert vectors.dtype == np.float32
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1.0, atol=1e-6)
    assert (vectors * encode(encoder, images)).sum(axis=1).min() > 0.995
    assert (short.encode_texts(["oak"]) * encoder.encode_texts(["oak"])).sum() > 0.995
    assert short.space.space_id == encoder.space.space_id


def test_auto_keeps_the_float32_network_where_the_check_fails(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from embedding_assets.encoders import device

    monkeypatch.setattr(device, "cpu_has_bfloat16", lambda: True)
    monkeypatch.setattr(device, "MIN_COSINE", 1.1)  # nothing is this close
    folder = copy_of(tiny_model, tmp_path / "unlucky")
    encoder = OpenClipEncoder(f"local-dir:{folder}", decode=decode, device="cpu")
    assert encoder.precision.dtype == "float32"
    assert "not close enough" in encoder.precision.reason
    assert {p.dtype for p in encoder._loaded().network.parameters()} == {torch.float32}


def test_auto_takes_the_shorter_network_where_the_check_passes(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from embedding_assets.encoders import device

    monkeypatch.setattr(device, "cpu_has_bfloat16", lambda: True)
    monkeypatch.setattr(device, "MIN_SPEEDUP", 0.0)  # the test machine may emulate it slowly
    monkeypatch.setattr(device, "MIN_COSINE", 0.99)
    folder = copy_of(tiny_model, tmp_path / "lucky")
    encoder = OpenClipEncoder(f"local-dir:{folder}", decode=decode, device="cpu")
    assert encoder.precision.dtype == "bfloat16"
    assert {p.dtype for p in encoder._loaded().network.parameters()} == {torch.bfloat16}


# -- failures while encoding -------------------------------------------------------------------------------------


def test_a_batch_that_does_not_fit_is_too_large(encoder: OpenClipEncoder, images: list[bytes]) -> None:
    broken = with_network(encoder, encode_image=raising(torch.cuda.OutOfMemoryError("CUDA out of memory.")))
    with pytest.raises(TooLargeError, match="7 images do not fit"):
        encode(broken, images)


def test_a_lost_device_is_an_infrastructure_error(encoder: OpenClipEncoder, images: list[bytes]) -> None:
    error = RuntimeError("CUDA error: device-side assert triggered")
    broken = with_network(encoder, encode_image=raising(error), encode_text=raising(error))
    with pytest.raises(InfrastructureError):
        encode(broken, images)
    with pytest.raises(InfrastructureError):
        broken.encode_texts(["oak"])


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), 0.0])
def test_a_vector_without_direction_is_a_permanent_error(
    encoder: OpenClipEncoder, images: list[bytes], bad: float
) -> None:
    def encode_image(pixels: torch.Tensor) -> torch.Tensor:
        features = torch.ones(len(pixels), 24)
        features[-1] = bad
        return features

    broken = with_network(encoder, encode_image=encode_image)
    for batch in (images, images[:1]):
        with pytest.raises(PermanentError, match=rf"image {len(batch) - 1} of a batch of {len(batch)}"):
            encode(broken, batch)


def test_vectors_of_another_dimension_than_the_space_are_fatal() -> None:
    with pytest.raises(FatalError, match=r"\(2, 5\), expected \(n, 4\)"):
        unit_rows(np.ones((2, 5), dtype=np.float32), 4, "image")


def test_a_config_is_json_that_open_clip_wrote_itself(tiny_model: Path) -> None:
    """Guards the fixture: the folder must be what open_clip calls local-dir:."""
    assert set(json.loads((tiny_model / "open_clip_config.json").read_text())) == {
        "model_cfg",
        "preprocess_cfg",
    }
