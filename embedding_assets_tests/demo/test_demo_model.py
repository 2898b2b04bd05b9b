"""The shipped model: small, loads offline through plain open_clip, and ranks held-out swatches sensibly."""

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import open_clip
import pytest
import torch

from embedding_assets.demo import demo_model_path
from embedding_assets.demo.evaluation import evaluate
from embedding_assets.demo.specification import make_products
from embedding_assets.demo.swatches import draw_swatch

PRODUCTS = make_products(60, seed=41, split="held-out")


@pytest.fixture(scope="module")
def model() -> Any:
    loaded, _, preprocess = open_clip.create_model_and_transforms(f"local-dir:{demo_model_path()}")
    return loaded.eval(), preprocess, open_clip.get_tokenizer(f"local-dir:{demo_model_path()}")


@pytest.fixture(scope="module")
def image_vectors(model: Any) -> npt.NDArray[np.float32]:
    encoder, preprocess, _ = model
    with torch.inference_mode():
        batch = torch.stack([preprocess(draw_swatch(product, 256, 5)) for product in PRODUCTS])
        return np.asarray(encoder.encode_image(batch, normalize=True).numpy())


def scores(
    model: Any, image_vectors: npt.NDArray[np.float32], texts: Sequence[str]
) -> npt.NDArray[np.float32]:
    encoder, _, tokenizer = model
    with torch.inference_mode():
        return np.asarray(
            encoder.encode_text(tokenizer(list(texts)), normalize=True).numpy() @ image_vectors.T
        )


def test_the_model_folder_is_at_most_10_megabytes_and_says_what_it_is() -> None:
    folder = demo_model_path()
    assert sum(file.stat().st_size for file in folder.iterdir()) <= 10_000_000
    card = (folder / "MODEL_CARD.md").read_text()
    assert "drawn swatches" in card
    assert "useless for real photographs" in card


def test_the_weights_are_stored_in_half_precision() -> None:
    from safetensors.torch import load_file

    tensors = load_file(demo_model_path() / "open_clip_model.safetensors")
    assert {tensor.dtype for tensor in tensors.values() if tensor.is_floating_point()} == {torch.float16}


def test_the_model_loads_offline_in_an_empty_home(tmp_path: Path) -> None:
    script = (
        "import open_clip, sys\n"
        "name = 'local-dir:' + sys.argv[1]\n"
        "model, _, preprocess = open_clip.create_model_and_transforms(name)\n"
        "tokens = open_clip.get_tokenizer(name)(['blue herringbone'])\n"
        "print(model.encode_text(tokens).shape[1])\n"
    )
    environment = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        [sys.executable, "-c", script, str(demo_model_path())],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "192"


def test_asking_for_the_models_path_does_not_import_torch() -> None:
    script = (
        "import sys; from embedding_assets.demo import demo_model_path\n"
        "demo_model_path(); print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


@pytest.mark.parametrize(
    ("query", "attribute", "value"),
    [
        ("blue", "colour", "blue"),
        ("dark blue tiles", "colour", "navy"),
        ("gray", "colour", "grey"),
        ("herringbone", "pattern", "herringbone"),
        ("polka dot pattern", "pattern", "dots"),
        ("marble", "material", "marble"),
        ("wooden floor", "material", "oak"),
        ("polished", "finish", "glossy"),
        ("rustic style", "style", "rustic"),
    ],
)
def test_a_query_for_one_attribute_puts_swatches_that_have_it_above_the_others(
    model: Any, image_vectors: npt.NDArray[np.float32], query: str, attribute: str, value: str
) -> None:
    right = np.array([product.attributes[attribute] == value for product in PRODUCTS])
    ranked = scores(model, image_vectors, [query])[0]
    assert right.any()
    # The chance that a right swatch scores above a wrong one (area under the ROC curve).
    assert (ranked[right][:, None] > ranked[~right][None, :]).mean() > 0.9


def test_case_and_punctuation_of_a_query_do_not_matter(
    model: Any, image_vectors: npt.NDArray[np.float32]
) -> None:
    plain, loud = scores(model, image_vectors, ["blue herringbone tile", "Blue, HERRINGBONE tile!"])
    assert np.allclose(plain, loud, atol=1e-5)


def test_words_it_never_saw_are_embedded_all_the_same(
    model: Any, image_vectors: npt.NDArray[np.float32]
) -> None:
    ranked = scores(model, image_vectors, ["Küche 60×120", "", "🧱"])
    assert np.isfinite(ranked).all()


def test_held_out_swatches_are_found_by_their_captions() -> None:
    # A quarter of the benchmark's images; benchmarks/demo_model.py --check measures the promise itself.
    found = evaluate(demo_model_path(), images=50)
    assert found.recall_at_1 >= 0.8
    assert found.recall_at_5 >= 0.95
    assert min(found.attribute_accuracy.values()) >= 0.7


def test_more_images_than_held_out_looks_are_refused() -> None:
    with pytest.raises(ValueError, match="held-out"):
        evaluate(demo_model_path(), images=10_000)
