"""The words of the local analyser: which values an attribute can have, and by which words text names them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from importlib import resources
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from embedding_assets.errors import SettingsError

ATTRIBUTES = ("material", "pattern", "finish", "style")
"""What is told by zero-shot classification."""

_LOOK = re.compile(r"[- ](?:look|effect|style|imitation|inspired|like|design|optic)\b")


class Value(BaseModel):
    """One value: the words that name it in text (the value itself need not be one), and the product category."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    words: tuple[str, ...] = Field(min_length=1)
    category: str = ""


class Attribute(BaseModel):
    """One attribute: prompt templates with one "{}" each, and its values in the order of preference."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    templates: tuple[str, ...] = Field(min_length=1)
    values: dict[str, Value] = Field(min_length=2)

    def prompts(self, value: str) -> list[str]:
        """The prompts that stand for a value."""
        return [template.format(value) for template in self.templates]


class Vocabulary(BaseModel):
    """All attributes, and words for colours, textures, categories and applications, which are only found in text."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    version: int
    attributes: dict[str, Attribute]
    colors: dict[str, tuple[str, ...]] = Field(default_factory=dict)
    textures: dict[str, tuple[str, ...]] = Field(default_factory=dict)
    categories: dict[str, tuple[str, ...]]
    applications: dict[str, tuple[str, ...]]

    @cached_property
    def matchers(self) -> dict[str, Matcher]:
        """What finds words in text: by attribute name, and "color", "texture", "category" and "application"."""
        found = {
            name: Matcher.of(
                {value: entry.words for value, entry in attribute.values.items()},
                looks_count=name != "material",
            )
            for name, attribute in self.attributes.items()
        }
        return {
            **found,
            "color": Matcher.of(self.colors),
            "texture": Matcher.of(self.textures),
            "category": Matcher.of(self.categories),
            "application": Matcher.of(self.applications),
        }


@dataclass(frozen=True)
class Matcher:
    """Finds values by their words in text.

    Attributes:
        pattern: finds a word, in lower-case text.
        values: word -> value.
        looks_count: whether "X look" and "X style" name X. "Rustic style" is a style; "marble look" is no marble.
    """

    pattern: re.Pattern[str]
    values: Mapping[str, str]
    looks_count: bool

    @classmethod
    def of(cls, words: Mapping[str, Iterable[str]], *, looks_count: bool = True) -> Matcher:
        """A matcher of value -> words. Case does not count, nor a plural s."""
        values = {word.lower(): value for value, entries in words.items() for word in entries}
        longest_first = sorted(values, key=lambda word: (-len(word), word))
        alternatives = "|".join(re.escape(word).replace(r"\ ", r"[\s-]+") for word in longest_first)
        found = (
            rf"(?<![\w])({alternatives})s?(?!\w)" if values else r"(?!)"
        )  # nothing to find: matches nowhere
        return cls(re.compile(found), values, looks_count)

    def named(self, text: str) -> list[str]:
        """The values that a text names, in its order, once each."""
        return self._found(text, (False, True) if self.looks_count else (False,))

    def looks(self, text: str) -> list[str]:
        """The values that stand before "look", "effect", "style": "marble" of "marble-effect"."""
        return self._found(text, (True,))

    def _found(self, text: str, looks: tuple[bool, ...]) -> list[str]:
        # Lower-cased first: a pattern that ignores case also takes letters (long s) that `values` does not know.
        text = text.lower()
        words = [
            match[1]
            for match in self.pattern.finditer(text)
            if (_LOOK.match(text, match.end()) is not None) in looks
        ]
        return list(dict.fromkeys(self._value(word) for word in words))

    def _value(self, word: str) -> str:
        spaced = re.sub(r"\s+", " ", word)
        return self.values.get(spaced) or self.values[re.sub(r"[\s-]+", " ", spaced)]


def load_vocabulary(path: Path | None = None) -> Vocabulary:
    """The vocabulary of a JSON file, or the one that comes with the package.

    Raises:
        SettingsError: the file can't be read or is not a vocabulary; the message says where.
    """
    try:
        if path is None:
            text = resources.files("embedding_assets.analysis").joinpath("vocabulary.json").read_text("utf-8")
        else:
            text = path.read_text("utf-8")
        vocabulary = Vocabulary.model_validate(json.loads(text))
    except (OSError, ValueError, ValidationError) as error:
        raise SettingsError(f"vocabulary {path or 'of the package'}: {error}") from error
    missing = [name for name in ATTRIBUTES if name not in vocabulary.attributes]
    if missing:
        raise SettingsError(f"vocabulary {path or 'of the package'}: no attribute {', '.join(missing)}")
    return vocabulary
