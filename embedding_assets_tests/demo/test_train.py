"""The training recipe's own parts; a full training is the script's business, two steps of one are tested here."""

from pathlib import Path

import open_clip
import pytest
import torch

from embedding_assets.demo.train import (
    BATCH,
    IMAGE_SIDE,
    POOL_SIDE,
    augment,
    contrastive_loss,
    fitting,
    train,
)


def test_a_caption_fits_every_image_that_has_all_that_it_names() -> None:
    truth = torch.tensor([[0, 1], [0, 2], [3, 2]])
    mentioned = torch.tensor([[0, -1], [0, 2], [-1, -1]])
    assert fitting(truth, mentioned).tolist() == [
        [True, False, True],
        [True, True, True],
        [False, False, True],
    ]


def test_the_loss_is_least_when_scores_agree_with_what_fits() -> None:
    fits = torch.eye(4, dtype=torch.bool)
    assert contrastive_loss(20 * fits.float(), fits) < 0.01 < contrastive_loss(torch.zeros(4, 4), fits)


def test_augmented_images_have_the_models_size_and_are_normalised() -> None:
    images = torch.full((3, 3, POOL_SIDE, POOL_SIDE), 255, dtype=torch.uint8)
    out = augment(images, torch.Generator().manual_seed(0))
    assert out.shape == (3, 3, IMAGE_SIDE, IMAGE_SIDE)
    assert 1.0 < float(out.mean()) <= 2.0


@pytest.mark.slow
def test_two_steps_of_training_twice_give_the_same_loadable_model(tmp_path: Path) -> None:
    for name in ("first", "second"):
        train(tmp_path / name, steps=2, pool=BATCH, seed=1)
    first, second = (tmp_path / name / "open_clip_model.safetensors" for name in ("first", "second"))
    assert first.read_bytes() == second.read_bytes()
    model = open_clip.create_model(f"local-dir:{tmp_path / 'first'}", require_pretrained=True)
    assert model.encode_text(torch.zeros(1, 24, dtype=torch.long)).shape == (1, 192)
