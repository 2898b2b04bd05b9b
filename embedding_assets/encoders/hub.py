"""Files of Hugging Face repositories: from the cache if they lie there, else downloaded, and refused fast.

Why not open_clip's own download: it asks the hub for each file at every start, and without a network
huggingface_hub tries each question six times over 23 seconds (huggingface_hub 2.4), twice per file, before it
looks into its cache. It also goes on with random weights when an `hf-hub:` repository's weights can't be had.
Here a cached file is taken as it is, so a model changes only when someone clears the cache, and one quick
question decides whether the hub can be reached at all.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from pathlib import Path

from embedding_assets.errors import ModelUnavailable

log = logging.getLogger(__name__)

PROBE_TIMEOUT_S = 10.0
"""Seconds for the one question that tells whether the hub answers."""

OFFLINE_CHOICES = (
    "offline: EMBEDDING_ASSETS_SLIG_MODEL=local-dir:<folder> with weights fetched on a connected machine "
    "(docs/encoder.md has the commands), or the demo model via --demo"
)


def cached_file(repo: str, names: Sequence[str]) -> Path | None:
    """The first of `names` that lies in the cache, in the revision that the cache knows as main."""
    from huggingface_hub import try_to_load_from_cache

    for name in names:
        found = try_to_load_from_cache(repo, name)
        if isinstance(found, str):
            return Path(found)
    return None


def fetch_file(repo: str, names: Sequence[str], *, setting: str, token: str | None = None) -> Path:
    """One file of a repository, from the cache or downloaded.

    Args:
        repo: "organisation/name".
        names: file names, best first; the first that the repository has is taken.
        setting: the setting to name in errors, as NAME=value.
        token: a token for gated repositories; given to huggingface_hub as HF_TOKEN unless that is set.

    Raises:
        ModelUnavailable: not cached, and the hub can't be reached or may not be asked, the repository does not
            exist or is gated, or it has none of the files.
    """
    found = cached_file(repo, names)
    if found is not None:
        return found
    available = _ask_hub(repo, setting=setting, token=token)
    name = next((name for name in names if name in available), None)
    if name is None:
        raise ModelUnavailable(
            f"{setting}: the repository {repo} has none of {', '.join(names)}", hint=OFFLINE_CHOICES
        )
    return _download(repo, name, setting=setting)


def require_hub(repo: str, *, setting: str, token: str | None = None) -> None:
    """Returns if the hub answers for a repository; raises ModelUnavailable, within seconds, if not."""
    _ask_hub(repo, setting=setting, token=token)


def _ask_hub(repo: str, *, setting: str, token: str | None) -> set[str]:
    """Names of the repository's files. One request, not repeated by huggingface_hub when it fails."""
    from huggingface_hub import HfApi, constants

    if constants.HF_HUB_OFFLINE:
        raise ModelUnavailable(
            f"{setting}: {repo} is not in the cache ({constants.HF_HUB_CACHE}), and HF_HUB_OFFLINE forbids to "
            "download it",
            hint=OFFLINE_CHOICES,
        )
    if token and not os.environ.get("HF_TOKEN"):
        os.environ["HF_TOKEN"] = token  # where huggingface_hub looks, also when transformers calls it
    try:
        info = HfApi().model_info(repo, timeout=PROBE_TIMEOUT_S)
    except Exception as error:  # its HTTP library's errors have no common base across versions
        raise _unavailable(repo, setting, error) from error
    return {sibling.rfilename for sibling in info.siblings or []}


def _download(repo: str, name: str, *, setting: str) -> Path:
    from huggingface_hub import hf_hub_download

    log.info("downloading %s of https://huggingface.co/%s (%s)", name, repo, setting)
    try:
        path = Path(hf_hub_download(repo, name))
    except Exception as error:  # as above
        raise _unavailable(repo, setting, error) from error
    log.info("downloaded %s: %.0f MB in %s", name, path.stat().st_size / 1e6, path.parent)
    return path


def _unavailable(repo: str, setting: str, error: Exception) -> ModelUnavailable:
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError

    if isinstance(error, GatedRepoError):
        return ModelUnavailable(
            f"{setting}: the repository {repo} is gated",
            hint=f"accept its terms at https://huggingface.co/{repo} and set HF_TOKEN; {OFFLINE_CHOICES}",
        )
    if isinstance(error, RepositoryNotFoundError):
        return ModelUnavailable(
            f"{setting}: the hub has no repository {repo}, or it is private",
            hint=f"check the name; a private one needs HF_TOKEN; {OFFLINE_CHOICES}",
        )
    text = (str(error).strip().splitlines() or [""])[0][:200]
    return ModelUnavailable(
        f"{setting}: {repo} can't be downloaded: {type(error).__name__}: {text}", hint=OFFLINE_CHOICES
    )
