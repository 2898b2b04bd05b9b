"""Where a configured model comes from: its files, and what identifies its weights.

What belongs here: the grammar of the model setting, finding the files, and the weights' identity. What does
not: building the model (`loading`), talking to the hub (`hub`).

    ViT-B-16-SigLIP2-512 + webli      a model that open_clip knows, and a tag of its weights
    ViT-B-32 + /path/to/weights.pt    ... and weights from a file
    ViT-B-32 + random[:seed=N]        ... and random weights: benchmarks and tests only
    hf-hub:organisation/name          a repository with open_clip_config.json and weights
    local-dir:/path/to/folder         a folder with the same files
"""

from __future__ import annotations

import difflib
import hashlib
import json
import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from embedding_assets.encoders.hub import OFFLINE_CHOICES, fetch_file
from embedding_assets.errors import ModelUnavailable

log = logging.getLogger(__name__)

MODEL_SETTING = "EMBEDDING_ASSETS_SLIG_MODEL"
PRETRAINED_SETTING = "EMBEDDING_ASSETS_SLIG_PRETRAINED"
CONFIG_NAME = "open_clip_config.json"
HUB_WEIGHTS = (
    "open_clip_model.safetensors",
    "open_clip_pytorch_model.safetensors",
    "open_clip_pytorch_model.bin",
)
"""Names of weights in hub repositories, best first: open_clip/constants.py, and its safetensors alternatives."""

_RANDOM = re.compile(r"random(?::seed=(\d{1,9}))?")
_MAKE_FOLDER = "docs/encoder.md says how to make such a folder; the demo model via --demo needs none"


@dataclass(frozen=True)
class ModelSource:
    """A model that can be built without asking a network for anything but its tokenizer.

    Attributes:
        open_clip_name: what open_clip.create_model takes: a known name, or "local-dir:<folder>".
        weights_file: the weights; None for random ones only.
        seed: of random weights; None where there is a file.
        config: open_clip's model configuration ("embed_dim", "vision_cfg", "text_cfg").
        preprocessing: open_clip's preprocessing where the weights' tag brings its own; empty otherwise.
        identity_model, identity_weights: the fields of the embedding space.
        label: for people.
        setting: what the user set, as NAME=value, for messages.
        tokenizer_folder: where the tokenizer's files lie, if not in a repository of their own.
    """

    open_clip_name: str
    weights_file: Path | None
    seed: int | None
    config: Mapping[str, Any]
    identity_model: str
    identity_weights: str
    label: str
    setting: str
    preprocessing: Mapping[str, Any] = field(default_factory=dict)
    tokenizer_folder: Path | None = None


def find_model(model: str, pretrained: str, token: str | None = None) -> ModelSource:
    """Finds a model's files, downloading what is not cached.

    Args:
        model: the setting slig_model, without the alias "demo".
        pretrained: the setting slig_pretrained; not used by `hf-hub:` and `local-dir:`.
        token: for gated repositories.

    Raises:
        ModelUnavailable: naming the setting to change and the offline choices.
    """
    if model.startswith("local-dir:"):
        folder = Path(model.removeprefix("local-dir:")).expanduser().absolute()
        return _from_folder(folder, setting=f"{MODEL_SETTING}={model}")
    if model.startswith("hf-hub:"):
        return _from_hub(model.removeprefix("hf-hub:"), setting=f"{MODEL_SETTING}={model}", token=token)
    return _by_name(model, pretrained, token=token)


def sha256_of(path: Path) -> str:
    """SHA-256 of a file's bytes, hexadecimal. About a second per gigabyte."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _from_folder(folder: Path, *, setting: str) -> ModelSource:
    if not folder.is_dir():
        raise ModelUnavailable(f"{setting}: there is no folder {folder}", hint=_MAKE_FOLDER)
    config = _read_config(folder / CONFIG_NAME, setting)
    weights = _weights_in(folder)
    if weights is None:  # open_clip would go on with random weights
        raise ModelUnavailable(
            f"{setting}: {folder} holds no weights, expected open_clip_model.safetensors", hint=_MAKE_FOLDER
        )
    return ModelSource(
        open_clip_name=f"local-dir:{folder}",
        weights_file=weights,
        seed=None,
        config=config,
        # Not the folder's path: a folder may be moved or copied to other machines, and stays the same model.
        identity_model=f"open_clip config sha256:{_config_hash(config)}",
        identity_weights=f"sha256:{sha256_of(weights)}",
        label=f"SLIG local-dir {folder.name}",
        setting=setting,
        tokenizer_folder=folder,
    )


def _from_hub(repo: str, *, setting: str, token: str | None) -> ModelSource:
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", repo):
        raise ModelUnavailable(f"{setting}: expected hf-hub:<organisation>/<name>")
    config_file = fetch_file(repo, [CONFIG_NAME], setting=setting, token=token)
    weights = fetch_file(repo, HUB_WEIGHTS, setting=setting, token=token)
    if weights.parent != config_file.parent:
        raise ModelUnavailable(
            f"{setting}: the cache holds configuration and weights of different revisions of {repo}",
            hint=f"remove {config_file.parent.parent.parent} and start again",
        )
    config = _read_config(config_file, setting)
    return ModelSource(
        open_clip_name=f"local-dir:{config_file.parent}",
        weights_file=weights,
        seed=None,
        config=config,
        identity_model=f"hf-hub:{repo} config sha256:{_config_hash(config)}",
        identity_weights=f"sha256:{_hub_hash(weights)}",
        label=f"SLIG hf-hub {repo}",
        setting=setting,
    )


def _by_name(model: str, pretrained: str, *, token: str | None) -> ModelSource:
    import open_clip
    from open_clip.pretrained import download_pretrained, get_pretrained_cfg, list_pretrained_tags_by_model

    setting = f"{MODEL_SETTING}={model}"
    name = model.replace("/", "-")  # as open_clip does: "ViT-B/32"
    config = open_clip.get_model_config(name) if name in open_clip.list_models() else None
    if config is None:
        raise ModelUnavailable(
            f"{setting}: open_clip has no such model{_close(name, open_clip.list_models())}",
            hint="`python -c 'import open_clip; print(open_clip.list_models())'` lists them; "
            "hf-hub:<organisation>/<name> and local-dir:<folder> are the other choices",
        )
    if random := _RANDOM.fullmatch(pretrained):
        seed = int(random.group(1) or 0)
        log.warning("%s has random weights (seed %d): its vectors mean nothing", name, seed)
        return ModelSource(
            open_clip_name=name,
            weights_file=None,
            seed=seed,
            config=config,
            identity_model=name,
            identity_weights=f"random:seed={seed}",
            label=f"SLIG {name} (random weights, seed {seed})",
            setting=f"{setting} {PRETRAINED_SETTING}={pretrained}",
        )
    setting = f"{setting} {PRETRAINED_SETTING}={pretrained}"
    tag: Mapping[str, Any] = get_pretrained_cfg(name, pretrained)
    if not tag:
        if Path(pretrained).is_file():
            return ModelSource(
                open_clip_name=name,
                weights_file=Path(pretrained),
                seed=None,
                config=config,
                identity_model=name,
                identity_weights=f"sha256:{sha256_of(Path(pretrained))}",
                label=f"SLIG {name} ({Path(pretrained).name})",
                setting=setting,
            )
        tags = list_pretrained_tags_by_model(name)
        raise ModelUnavailable(
            f"{PRETRAINED_SETTING}={pretrained}: no weights of {name} have this tag{_close(pretrained, tags)}"
            + (f"; it has {', '.join(tags)}" if tags else "; open_clip knows no weights of it"),
            hint=OFFLINE_CHOICES,
        )
    if bool(tag.get("quick_gelu")) != bool(config.get("quick_gelu")):
        log.warning(
            "%s: these weights were trained with%s QuickGELU, and %s has it%s: the vectors will be worse than "
            "they could be; %s names the matching model",
            setting,
            "" if tag.get("quick_gelu") else "out",
            name,
            " not" if tag.get("quick_gelu") else "",
            f"{name}-quickgelu" if tag.get("quick_gelu") else name.removesuffix("-quickgelu"),
        )
    if tag.get("hf_hub"):
        # "organisation/name/file", or "organisation/name/" for the usual file names (open_clip/pretrained.py)
        repo, _, file = str(tag["hf_hub"]).rpartition("/")
        names = (str(Path(file).with_suffix(".safetensors")), file) if file else HUB_WEIGHTS
        weights = fetch_file(repo, names, setting=setting, token=token)
    else:
        log.info("fetching weights of %s: %s", setting, tag.get("url"))
        try:
            weights = Path(download_pretrained(dict(tag)))
        except (OSError, RuntimeError) as error:
            raise ModelUnavailable(f"{setting}: {error}", hint=OFFLINE_CHOICES) from error
    return ModelSource(
        open_clip_name=name,
        weights_file=weights,
        seed=None,
        config=config,
        identity_model=name,
        identity_weights=pretrained.lower().replace("-", "_"),  # open_clip's own normal form of a tag
        label=f"SLIG {name} ({pretrained})",
        setting=setting,
        preprocessing={key: value for key, value in tag.items() if key not in {"size", "url", "hf_hub"}},
    )


def _read_config(path: Path, setting: str) -> dict[str, Any]:
    try:
        loaded = json.loads(path.read_text(encoding="utf-8"))
        config = loaded["model_cfg"]
        int(config["embed_dim"]), dict(config["vision_cfg"]), dict(config["text_cfg"])
    except FileNotFoundError:
        raise ModelUnavailable(f"{setting}: {path.parent} holds no {path.name}", hint=_MAKE_FOLDER) from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelUnavailable(
            f"{setting}: {path} is no open_clip configuration ({type(error).__name__}: {error}); expected "
            'an object with "model_cfg" that has "embed_dim", "vision_cfg" and "text_cfg"',
            hint=_MAKE_FOLDER,
        ) from error
    assert isinstance(config, dict)
    return config


def _weights_in(folder: Path) -> Path | None:
    """The file that open_clip would load from a folder: its own choice, so that the hash is of that file."""
    from open_clip.factory import _find_checkpoint_in_dir  # the same in open_clip 3.0 to 3.3

    found = _find_checkpoint_in_dir(folder)
    return Path(found) if found else None


def _config_hash(config: Mapping[str, Any]) -> str:
    """16 digits: the same weights in another architecture (heads, activation) make other vectors."""
    return hashlib.sha256(json.dumps(config, sort_keys=True).encode()).hexdigest()[:16]


def _hub_hash(path: Path) -> str:
    """SHA-256 of a cached hub file: the cache names large files by it, so that they need not be read."""
    blob = path.resolve().name
    return blob if re.fullmatch(r"[0-9a-f]{64}", blob) else sha256_of(path)


def _close(name: str, known: list[str]) -> str:
    lowered = {candidate.lower(): candidate for candidate in known}
    close = difflib.get_close_matches(name.lower(), lowered, n=3, cutoff=0.5)
    return f"; did you mean {' or '.join(lowered[match] for match in close)}?" if close else ""
