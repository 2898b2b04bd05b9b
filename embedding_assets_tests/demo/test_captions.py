"""Captions: what they name must be true of the product, and what they claim to name must be there."""

import random

from embedding_assets.demo.captions import SYNONYMS, captions, training_caption
from embedding_assets.demo.specification import ATTRIBUTE_VALUES, make_products


def test_the_complete_caption_names_all_four_visible_attributes() -> None:
    for product in make_products(50):
        complete = captions(product)[0]
        assert all(
            value in complete for value in (product.material, product.colour, product.pattern, product.finish)
        )


def test_a_training_caption_names_only_true_attributes_and_says_each_in_a_known_word() -> None:
    rng = random.Random(3)
    for product in make_products(400):
        caption = training_caption(product, rng)
        assert caption.mentioned
        assert caption.mentioned.items() <= product.attributes.items()
        for value in caption.mentioned.values():
            assert any(word in caption.text for word in SYNONYMS.get(value, (value,)))


def test_training_captions_name_single_attributes_often_enough_to_learn_them_alone() -> None:
    rng = random.Random(4)
    alone = set()
    for product in make_products(2000):
        mentioned = training_caption(product, rng).mentioned
        if len(mentioned) == 1:
            alone.update(mentioned.items())
    assert alone == {(name, value) for name, values in ATTRIBUTE_VALUES.items() for value in values}


def test_no_word_stands_for_two_values() -> None:
    words = [word for synonyms in SYNONYMS.values() for word in synonyms]
    assert len(words) == len(set(words))


def test_the_same_random_state_gives_the_same_caption() -> None:
    product = make_products(1)[0]
    assert training_caption(product, random.Random(9)) == training_caption(product, random.Random(9))
