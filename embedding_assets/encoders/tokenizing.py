"""The tokenizer of a model: from its folder, from open_clip itself, or from a repository of the hub."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeAlias

from embedding_assets.encoders.hub import OFFLINE_CHOICES, require_hub
from embedding_assets.encoders.model_source import ModelSource
from embedding_assets.errors import ModelUnavailable

if TYPE_CHECKING:
    import torch

log = logging.getLogger(__name__)

Tokenizer: TypeAlias = "Callable[[list[str]], torch.Tensor]"
"""Texts to token ids: int64, shape (n, context length), truncated and padded."""

_DEFAULT_CONTEXT_LENGTH = 77
"""open_clip's, for models whose configuration names none (open_clip/tokenizer.py)."""


def load_tokenizer(source: ModelSource, token: str | None = None) -> Tokenizer:
    """Loads the tokenizer that a model was trained with.

    The choice is open_clip's (`open_clip.get_tokenizer`), but a folder's files are never looked up on the hub,
    cached files are taken without a question, and an unreachable hub is found out in one.

    Raises:
        ModelUnavailable: the tokenizer's files are missing, or can't be downloaded.
    """
    import open_clip
    from open_clip.tokenizer import SimpleTokenizer

    text_config = dict(source.config.get("text_cfg", {}))
    context_length = int(text_config.get("context_length") or _DEFAULT_CONTEXT_LENGTH)
    options = dict(text_config.get("tokenizer_kwargs") or {})
    repo = str(text_config.get("hf_tokenizer_name") or "")
    try:
        if not repo:
            # Neither named by a repository nor in a folder: open_clip ships the file of CLIP's own tokenizer.
            if source.open_clip_name.startswith("local-dir:"):
                tokenizer: Tokenizer = SimpleTokenizer(context_length=context_length, **options)
            else:
                tokenizer = open_clip.get_tokenizer(source.open_clip_name)
            return tokenizer
        options.update(context_length=context_length, tokenizer_mode=text_config.get("tokenizer_mode"))
        if source.tokenizer_folder is not None:
            return _from_files(str(source.tokenizer_folder), options)
        try:
            return _from_files(repo, options)
        except (OSError, ValueError) as not_cached:
            log.debug("tokenizer %s is not cached: %s", repo, not_cached)
        require_hub(repo, setting=source.setting, token=token)
        log.info("downloading the tokenizer of https://huggingface.co/%s (%s)", repo, source.setting)
        return _from_files(repo, options, local_only=False)
    except ModelUnavailable:
        raise
    except Exception as error:  # tokenizers raises bare Exception for a malformed file
        where = source.tokenizer_folder or repo or source.open_clip_name
        text = " ".join(str(error).split())[:200]
        raise ModelUnavailable(
            f"{source.setting}: the tokenizer can't be loaded from {where}: {type(error).__name__}: {text}",
            hint=OFFLINE_CHOICES,
        ) from error


def _from_files(where: str, options: dict[str, Any], *, local_only: bool = True) -> Tokenizer:
    from open_clip.tokenizer import HFTokenizer

    tokenizer: Tokenizer = HFTokenizer(where, local_files_only=local_only, **options)
    return tokenizer
