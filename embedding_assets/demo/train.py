"""Trains the demo model on drawn swatches: `python -m embedding_assets.demo.train --out DIR`.

A small CLIP (two transformers, about 4 million parameters) learns from swatches and captions that name some of their
attributes. Since the drawing's truth is known, the loss is told every caption that fits a picture, not only the one
it came with: "blue" is right for each blue swatch of a batch, and none of them is pushed away from it.

The budget is counted in steps, not minutes, so that a seed gives the same model on the same machine and versions.
"""

import argparse
import json
import random
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import numpy.typing as npt
import open_clip
import torch
import torch.nn.functional as F  # noqa: N812 (torch's own habit)
from PIL import Image
from safetensors.torch import save_file
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

from embedding_assets.demo.captions import TrainingCaption, training_caption
from embedding_assets.demo.specification import (
    ATTRIBUTE_VALUES,
    GRID_SIZE,
    ProductSpec,
    is_held_out,
    make_products,
)
from embedding_assets.demo.swatches import draw_swatch

DEFAULT_STEPS = 800
DEFAULT_POOL = 5000
BATCH = 128
PEAK_RATE = 2e-3
THREADS = 2
POOL_SIDE = 80
IMAGE_SIDE = 64
CONTEXT_LENGTH = 24
VOCABULARY = 768


def model_config(vocabulary: int) -> dict[str, object]:
    """Return the content of open_clip_config.json for a tokenizer of `vocabulary` tokens."""
    return {
        "model_cfg": {
            "embed_dim": 192,
            "custom_text": True,
            "vision_cfg": {
                "image_size": IMAGE_SIDE,
                # CLIP's own small ResNet: convolutions learn texture from far fewer pictures than a vision
                # transformer of the same cost, and its attention pool looks at where things are.
                "layers": [1, 1, 1, 1],
                "width": 24,
                "head_width": 64,
            },
            "text_cfg": {
                "context_length": CONTEXT_LENGTH,
                "vocab_size": vocabulary,
                # open_clip takes the tokenizer from the model's own folder whatever name stands here.
                "hf_tokenizer_name": "demo",
                "tokenizer_kwargs": {"clean": "canonicalize"},
                "width": 128,
                "heads": 4,
                "layers": 2,
                "no_causal_mask": True,
                "pool_type": "last",
            },
        },
        "preprocess_cfg": {
            "mean": [0.5, 0.5, 0.5],
            "std": [0.25, 0.25, 0.25],
            "interpolation": "bicubic",
            "resize_mode": "squash",
        },
    }


def write_tokenizer(folder: Path, corpus: Sequence[str]) -> int:
    """Train a lower-casing byte-level BPE tokenizer on `corpus`, save it in `folder`, return its vocabulary size.

    The configuration is written by hand: what transformers itself saves names a class that older versions lack.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()])
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=["<pad>", "<eos>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(corpus, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(single="$A <eos>", special_tokens=[("<eos>", 1)])
    tokenizer.save(str(folder / "tokenizer.json"))
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "pad_token": "<pad>",
        "eos_token": "<eos>",
        "model_max_length": CONTEXT_LENGTH,
        "padding_side": "right",
        "clean_up_tokenization_spaces": False,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=2) + "\n")
    return tokenizer.get_vocab_size()


def draw_pool(products: Sequence[ProductSpec], count: int) -> npt.NDArray[np.uint8]:
    """Draw `count` swatches, going round the products; shape (count, 3, POOL_SIDE, POOL_SIDE), uint8."""
    jobs = [(products[i % len(products)], 1_000_000 + i) for i in range(count)]
    with ProcessPoolExecutor(THREADS, mp_context=get_context("spawn")) as workers:
        return np.stack(list(workers.map(_draw_small, jobs, chunksize=100)))


def _draw_small(job: tuple[ProductSpec, int]) -> npt.NDArray[np.uint8]:
    # Drawn at twice the size and reduced, as inference reduces a larger swatch.
    swatch = draw_swatch(job[0], 2 * POOL_SIDE, job[1]).resize(
        (POOL_SIDE, POOL_SIDE), Image.Resampling.BICUBIC
    )
    return np.moveaxis(np.asarray(swatch, dtype=np.uint8), 2, 0)


def augment(images: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Crop, flip, relight and normalise a batch.

    Args:
        images: uint8, shape (batch, 3, POOL_SIDE, POOL_SIDE).
        generator: the source of randomness.

    Returns:
        float32, shape (batch, 3, IMAGE_SIDE, IMAGE_SIDE), with the mean and deviation of `model_config`.
    """
    batch = images.shape[0]
    side = int(torch.randint(IMAGE_SIDE - 4, POOL_SIDE + 1, (1,), generator=generator))
    top, left = (int(torch.randint(0, POOL_SIDE - side + 1, (1,), generator=generator)) for _ in range(2))
    out = images[:, :, top : top + side, left : left + side].float() / 255
    out = F.interpolate(out, size=(IMAGE_SIDE, IMAGE_SIDE), mode="bicubic", antialias=True).clamp(0, 1)
    for axis in (2, 3):
        flip = torch.rand(batch, generator=generator) < 0.5
        out[flip] = out[flip].flip(axis)
    gain = 1 + 0.05 * torch.randn(batch, 1, 1, 1, generator=generator)
    tint = 1 + 0.015 * torch.randn(batch, 3, 1, 1, generator=generator)
    out = ((out * gain * tint).clamp(0, 1) - 0.5) / 0.25
    return out.contiguous(memory_format=torch.channels_last)


def fitting(truth: torch.Tensor, mentioned: torch.Tensor) -> torch.Tensor:
    """Tell which captions fit which images.

    Args:
        truth: attribute values of each image, int64, shape (images, attributes).
        mentioned: values that each caption names, -1 where it is silent, int64, shape (captions, attributes).

    Returns:
        bool, shape (images, captions).
    """
    same = truth[:, None, :] == mentioned[None, :, :]
    return torch.as_tensor((same | (mentioned[None, :, :] < 0)).all(dim=-1))


def contrastive_loss(logits: torch.Tensor, fits: torch.Tensor) -> torch.Tensor:
    """CLIP's symmetric cross-entropy with the target mass spread evenly over everything that fits.

    Args:
        logits: scaled cosines, shape (images, captions).
        fits: bool, same shape; each row and column holds at least one True.
    """
    target = fits.float()
    to_image = -(target / target.sum(0, keepdim=True) * logits.log_softmax(0)).sum(0).mean()
    to_text = -(target / target.sum(1, keepdim=True) * logits.log_softmax(1)).sum(1).mean()
    return (2 * to_image + to_text) / 3


class AttributeHeads(torch.nn.Module):
    """Reads every attribute off an image vector; only for training, where it teaches the image tower what matters.

    Contrast alone learns colour at once and texture very late: most captions of a batch are told apart by colour.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self._sizes = [len(values) for values in ATTRIBUTE_VALUES.values()]
        self._linear = torch.nn.Linear(width, sum(self._sizes))

    def forward(self, vectors: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
        """Return the mean cross-entropy.

        Args:
            vectors: image vectors before normalisation, shape (images, width).
            truth: attribute values, int64, shape (images, attributes).
        """
        scores = self._linear(vectors).split(self._sizes, dim=1)
        losses = [F.cross_entropy(score, truth[:, column]) for column, score in enumerate(scores)]
        return torch.stack(losses).mean()


def _codes(values: dict[str, str]) -> list[int]:
    return [ATTRIBUTE_VALUES[name].index(values[name]) if name in values else -1 for name in ATTRIBUTE_VALUES]


def train(out: Path, *, steps: int = DEFAULT_STEPS, pool: int = DEFAULT_POOL, seed: int = 0) -> None:
    """Train a model and write it to `out` in open_clip's `local-dir:` format, weights in half precision.

    Args:
        out: folder, made if missing; existing model files in it are replaced.
        steps: optimizer steps of `BATCH` pairs.
        pool: number of swatches drawn before training and seen again and again under augmentation.
        seed: decides swatches, captions, initial weights and order.
    """
    began = time.monotonic()
    torch.manual_seed(seed)
    torch.set_num_threads(THREADS)
    rng = random.Random(seed)
    generator = torch.Generator().manual_seed(seed)
    out.mkdir(parents=True, exist_ok=True)

    products = [p for p in make_products(GRID_SIZE, seed) if not is_held_out(p.material, p.colour, p.pattern)]
    corpus = [training_caption(product, rng).text for product in products for _ in range(4)]
    vocabulary = write_tokenizer(out, corpus)
    (out / "open_clip_config.json").write_text(json.dumps(model_config(vocabulary), indent=2) + "\n")
    tokenizer = open_clip.get_tokenizer(f"local-dir:{out}")
    model = open_clip.create_model(f"local-dir:{out}", load_weights=False)
    model.train()
    model.visual.to(memory_format=torch.channels_last)
    print(f"{sum(p.numel() for p in model.parameters()):,} parameters, {vocabulary} tokens")

    images = torch.from_numpy(draw_pool(products, pool))
    truth = torch.tensor([_codes(product.attributes) for product in products])
    print(f"{pool} swatches of {len(products)} looks drawn in {time.monotonic() - began:.0f} s", flush=True)

    heads = AttributeHeads(model.visual.output_dim)
    parameters = [*model.parameters(), *heads.parameters()]
    matrices = [p for p in parameters if p.ndim >= 2]
    others = [p for p in parameters if p.ndim < 2]
    groups = [{"params": matrices, "weight_decay": 0.05}, {"params": others, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, betas=(0.9, 0.98))
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, PEAK_RATE, total_steps=steps, pct_start=0.08)
    running = 0.0
    for step in range(1, steps + 1):
        chosen = torch.randint(0, pool, (BATCH,), generator=generator)
        which = chosen % len(products)
        drawn: list[TrainingCaption] = [training_caption(products[i], rng) for i in which.tolist()]
        fits = fitting(truth[which], torch.tensor([_codes(caption.mentioned) for caption in drawn]))
        image_vectors = model.encode_image(augment(images[chosen], generator))
        text_vectors = model.encode_text(tokenizer([caption.text for caption in drawn]), normalize=True)
        cosines = F.normalize(image_vectors, dim=-1) @ text_vectors.T
        loss = contrastive_loss(model.logit_scale.exp() * cosines, fits) + heads(image_vectors, truth[which])
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        schedule.step()
        with torch.no_grad():
            model.logit_scale.clamp_(max=float(np.log(100)))
        running += loss.item()
        if step % 50 == 0:
            print(f"step {step}: loss {running / 50:.3f}, {time.monotonic() - began:.0f} s", flush=True)
            running = 0.0

    half = {
        name: (tensor.half() if tensor.is_floating_point() else tensor).contiguous()
        for name, tensor in model.state_dict().items()
    }
    save_file(half, out / "open_clip_model.safetensors", metadata={"format": "pt"})
    print(f"written to {out} after {time.monotonic() - began:.0f} s")


def main(argv: Sequence[str] | None = None) -> None:
    """Parse the command line and train."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--out", type=Path, required=True, help="folder that receives the model")
    parser.add_argument(
        "--steps", type=int, default=DEFAULT_STEPS, help="optimizer steps (default %(default)s)"
    )
    parser.add_argument(
        "--pool", type=int, default=DEFAULT_POOL, help="swatches to draw (default %(default)s)"
    )
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args(argv)
    train(arguments.out, steps=arguments.steps, pool=arguments.pool, seed=arguments.seed)


if __name__ == "__main__":
    main()
