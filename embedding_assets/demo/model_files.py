"""Where the shipped demo weights lie. No import of torch: asking for a path must stay cheap."""

from importlib import resources
from pathlib import Path


def demo_model_path() -> Path:
    """Return the folder of the demo model, in open_clip's `local-dir:` layout.

    The folder holds `open_clip_config.json`, `open_clip_model.safetensors`, the tokenizer's files and
    `MODEL_CARD.md`. Use it as `open_clip.create_model_and_transforms(f"local-dir:{demo_model_path()}")`.

    Raises:
        FileNotFoundError: the package was installed without its data files.
    """
    folder = Path(str(resources.files("embedding_assets.demo"))) / "model"
    if not (folder / "open_clip_config.json").is_file():
        raise FileNotFoundError(
            f"the demo model is missing from {folder}; reinstall the package with its data files, or train one: "
            "python -m embedding_assets.demo.train --out DIR"
        )
    return folder
