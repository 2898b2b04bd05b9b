"""The truth about a written catalogue: what stands where, what is planted, and the JSON file that says so."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from embedding_assets.demo.queries import DEMO_QUERIES
from embedding_assets.demo.specification import ProductSpec


@dataclass(frozen=True)
class PlantedFault:
    """A bad image and what the pipeline should say of it.

    Attributes:
        document: file or folder name in the workspace's folder.
        page: page of a PDF, 1 for the first; None in a folder.
        file: file name in a folder; None in a PDF.
        kind: "truncated_jpeg", "decompression_bomb" or "icon".
        outcome: "rejected" for broken images, "skipped" for those too small to matter.
    """

    document: str
    page: int | None
    file: str | None
    kind: str
    outcome: str


@dataclass(frozen=True)
class CatalogueItem:
    """Where one good image of a product stands.

    Attributes:
        sku: the product's stock code; a product shown twice has two items.
        document: file or folder name in the workspace's folder.
        page: page of a PDF, 1 for the first; None in a folder.
        position: 1 for the first image of its page or folder.
        bbox: left, bottom, right, top in PDF points; None in a folder.
        file: file name in a folder; None in a PDF.
        mode: Pillow mode in which the image is stored.
        repeat: True where the same bytes stand earlier in the document.
        spec: the product.
    """

    sku: str
    document: str
    page: int | None
    position: int
    bbox: tuple[float, float, float, float] | None
    file: str | None
    mode: str
    repeat: bool
    spec: ProductSpec


@dataclass(frozen=True)
class CatalogueManifest:
    """The truth about a written catalogue.

    Attributes:
        root: the workspace's folder.
        truth_path: the JSON file with all of this.
        documents: names of the documents, in order.
        items: the good images.
        planted: the bad ones.
        image_query_sku: the product that `queries.draw_image_query` shows.
        sha256: content hash of every file, by name relative to `root`.
        written: files that this call wrote or replaced, relative to `root`; empty when all was there already.
    """

    root: Path
    truth_path: Path
    documents: tuple[str, ...]
    items: tuple[CatalogueItem, ...]
    planted: tuple[PlantedFault, ...]
    image_query_sku: str
    sha256: dict[str, str]
    written: tuple[str, ...]

    def spec(self, sku: str) -> ProductSpec:
        """Return the product of a stock code.

        Raises:
            KeyError: the catalogue does not show it.
        """
        for item in self.items:
            if item.sku == sku:
                return item.spec
        raise KeyError(sku)

    def to_json(self, version: int) -> str:
        """Return the truth as JSON, without the paths of this machine.

        Args:
            version: the catalogue's version, which `read_manifest` compares.
        """
        truth = {
            "version": version,
            "documents": self.documents,
            "queries": [asdict(query) for query in DEMO_QUERIES],
            "image_query_sku": self.image_query_sku,
            "items": [{**asdict(item), "spec": item.spec.to_dict()} for item in self.items],
            "planted": [asdict(fault) for fault in self.planted],
            "sha256": self.sha256,
        }
        return json.dumps(truth, indent=1) + "\n"


def read_manifest(root: Path, truth_path: Path, version: int) -> CatalogueManifest | None:
    """Read back what `CatalogueManifest.to_json` wrote.

    Args:
        root: the workspace's folder that the truth is about.
        truth_path: the JSON file.
        version: the only version that is understood.

    Returns:
        The manifest, with nothing in `written`; None where there is no file, or it is broken or of another version.
    """
    try:
        truth = json.loads(truth_path.read_bytes())
        if truth["version"] != version:
            return None
        return CatalogueManifest(
            root=root,
            truth_path=truth_path,
            documents=tuple(truth["documents"]),
            items=tuple(_item(entry) for entry in truth["items"]),
            planted=tuple(PlantedFault(**fault) for fault in truth["planted"]),
            image_query_sku=truth["image_query_sku"],
            sha256=dict(truth["sha256"]),
            written=(),
        )
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return None


def _item(entry: dict[str, Any]) -> CatalogueItem:
    spec = {name: value for name, value in entry["spec"].items() if name != "style"}
    spec["applications"] = tuple(spec["applications"])
    bbox = None if entry["bbox"] is None else tuple(entry["bbox"])
    return CatalogueItem(**{**entry, "spec": ProductSpec(**spec), "bbox": bbox})
