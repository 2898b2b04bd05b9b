"""How well a model finds held-out swatches by text: recall over distinct captions, and accuracy per attribute."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from embedding_assets.demo.captions import captions, prompt
from embedding_assets.demo.specification import (
    ATTRIBUTE_VALUES,
    ProductSpec,
    make_products,
)
from embedding_assets.demo.swatches import draw_swatch

REQUIRED_RECALL_AT_1 = 0.80
REQUIRED_RECALL_AT_5 = 0.95
EVALUATION_IMAGES = 200

_SEED = 20_000
_BATCH = 50


@dataclass(frozen=True)
class DemoModelScores:
    """What `evaluate` measured.

    Attributes:
        images: number of held-out images, each with a caption of its own.
        recall_at_1, recall_at_5: share of complete captions whose own image is the first, or among the first five.
        attribute_accuracy: by attribute, share of images whose true value has the best-fitting prompt.
    """

    images: int
    recall_at_1: float
    recall_at_5: float
    attribute_accuracy: dict[str, float]

    @property
    def passed(self) -> bool:
        """Both recalls reach what the demo promises."""
        return self.recall_at_1 >= REQUIRED_RECALL_AT_1 and self.recall_at_5 >= REQUIRED_RECALL_AT_5


def evaluate(model_folder: Path, *, images: int = EVALUATION_IMAGES, seed: int = _SEED) -> DemoModelScores:
    """Measure a `local-dir:` model on swatches of held-out combinations, drawn at 384 px with seeds of their own.

    Args:
        model_folder: a folder in open_clip's `local-dir:` format.
        images: how many swatches, all of different looks.
        seed: which held-out products, and which piece of each.

    Raises:
        ValueError: more images than held-out looks.
        FileNotFoundError: no model in the folder.
    """
    import open_clip
    import torch

    products = make_products(images, seed, "held-out")
    name = f"local-dir:{model_folder}"
    model, _, preprocess = open_clip.create_model_and_transforms(name)
    tokenizer = open_clip.get_tokenizer(name)
    model.eval()

    def embed_texts(texts: Sequence[str]) -> npt.NDArray[np.float32]:
        return np.asarray(model.encode_text(tokenizer(list(texts)), normalize=True).numpy())

    with torch.inference_mode():
        batches = []
        for start in range(0, images, _BATCH):
            drawn = [
                draw_swatch(p, 384, seed + start + i) for i, p in enumerate(products[start : start + _BATCH])
            ]
            batches.append(
                model.encode_image(torch.stack([preprocess(d) for d in drawn]), normalize=True).numpy()
            )
        image_vectors = np.concatenate(batches)
        scores = embed_texts([captions(product)[0] for product in products]) @ image_vectors.T
        accuracy = {
            attribute: _accuracy(
                attribute,
                products,
                image_vectors @ embed_texts([prompt(attribute, v) for v in ATTRIBUTE_VALUES[attribute]]).T,
            )
            for attribute in ATTRIBUTE_VALUES
        }
    # Ties count against the model: every image that scores as high as the right one stands before it.
    rank = (scores >= np.diag(scores)[:, None]).sum(axis=1)
    return DemoModelScores(images, float((rank <= 1).mean()), float((rank <= 5).mean()), accuracy)


def _accuracy(attribute: str, products: Sequence[ProductSpec], scores: npt.NDArray[np.float32]) -> float:
    best = scores.argmax(axis=1)
    right = [
        ATTRIBUTE_VALUES[attribute][i] == product.attributes[attribute]
        for i, product in zip(best, products, strict=True)
    ]
    return float(np.mean(right))
