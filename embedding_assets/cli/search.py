"""The command `search`, and how answers are printed."""

from __future__ import annotations

import json
import uuid
from enum import Enum
from pathlib import Path
from typing import Annotated, Any

import typer

from embedding_assets.cli.documents import DEFAULT_WORKSPACE
from embedding_assets.cli.output import out, print_json, print_table
from embedding_assets.errors import DocumentError
from embedding_assets.search.arms import ARMS
from embedding_assets.search.assembly import open_search_engine
from embedding_assets.search.profiles import AUTO, PROFILES
from embedding_assets.search.request import SearchRequest
from embedding_assets.search.result import SearchResult
from embedding_assets.settings import load_settings
from embedding_assets.store.database import open_database

Arm = Enum("Arm", {name.upper(): name for name in ARMS}, type=str)  # type: ignore[misc]
Profile = Enum("Profile", {name.upper(): name for name in (AUTO, *PROFILES)}, type=str)  # type: ignore[misc]


class Fusion(str, Enum):
    """How arms are put together."""

    CONVEX = "convex"
    RRF = "rrf"


def register(app: typer.Typer) -> None:
    """Adds the command."""
    app.command()(search)


def search(
    text: Annotated[str | None, typer.Argument(help="What to look for.")] = None,
    image: Annotated[Path | None, typer.Option("--image", help="Look for images like this file.")] = None,
    image_id: Annotated[
        str | None, typer.Option("--image-id", help="Look for images like this one of the workspace.")
    ] = None,
    workspace: Annotated[str | None, typer.Option("--workspace", "-w", help="Workspace to search.")] = None,
    document: Annotated[str | None, typer.Option("--document", help="Only this document.")] = None,
    pages: Annotated[str | None, typer.Option("--pages", help="Only these pages, 3 or 3-7.")] = None,
    filters: Annotated[
        str | None,
        typer.Option("--filter", help='Conditions as JSON, such as {"quality_score": {"$gte": 0.5}}.'),
    ] = None,
    profile: Annotated[
        Profile, typer.Option("--profile", help="Which arms count how much; auto goes by the text.")
    ] = Profile.AUTO,  # type: ignore[attr-defined]
    weight: Annotated[
        list[str] | None, typer.Option("--weight", help="arm=number, instead of a profile; may be repeated.")
    ] = None,
    arm: Annotated[Arm | None, typer.Option("--arm", help="Only this arm.")] = None,
    fusion: Annotated[Fusion, typer.Option("--fusion", help="How arms are put together.")] = Fusion.CONVEX,
    min_score: Annotated[float | None, typer.Option("--min-score", help="Leave out hits below it.")] = None,
    diverse: Annotated[bool, typer.Option("--diverse", help="Fold near-duplicates into the best.")] = False,
    top_k: Annotated[int, typer.Option("--top-k", "-k", min=1, max=200, help="How many hits.")] = 10,
    explain: Annotated[bool, typer.Option("--explain", help="Show arms, weights, scores, timings.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Search the images by text, by an image, or both."""
    if text is None and image is None and image_id is None:
        raise typer.BadParameter("give a text, an image or both")
    settings = load_settings()
    first_page, last_page = _pages(pages)
    request = SearchRequest(
        workspace or ("demo" if settings.demo else DEFAULT_WORKSPACE),
        text=text,
        image=_read(image),
        image_id=_image_id(image_id),
        document_id=document,
        first_page=first_page,
        last_page=last_page,
        filters=_filters(filters),
        profile=profile.value,
        weights={arm.value: 1.0} if arm else _weights(weight),
        top_k=top_k,
        min_score=min_score,
        fusion=fusion.value,
        diversity=diverse,
    ).checked()
    result = open_search_engine(settings, open_database(settings)).search(request)
    if as_json:
        print_json(result.as_dict())
        return
    if not result.candidates:
        raise DocumentError(
            f"no embedded image of workspace {request.workspace_id} is in scope",
            hint="see `embedding-assets coverage`, or choose --workspace, --document, --filter",
        )
    print_hits(text or f"like {image or image_id}", result, settings.image_store, explain=explain)


def print_hits(title: str, result: SearchResult, image_store: str, *, explain: bool = False) -> None:
    """The hits as a table; with `explain`, each arm's score, and what became of every arm."""
    used = [report.arm for report in result.arms if not report.left_out] if explain else []
    print_table(
        f"{title}   [{result.profile}]" if explain else title,
        [
            ("score", True),
            *((name, True) for name in used),
            ("document", False),
            ("page", True),
            ("caption", False),
            ("file", False),
        ],
        [
            (
                f"{hit.score:.3f}",
                *(_score(hit.scores.get(name)) for name in used),
                hit.document.document_id,
                hit.page_number,
                (hit.caption or hit.reference) + (f" (+{len(hit.duplicates)})" if hit.duplicates else ""),
                f"{image_store}/{hit.store_key}",
            )
            for hit in result.hits
        ],
    )
    if explain:
        _print_explanation(result)


def _print_explanation(result: SearchResult) -> None:
    print_table(
        f"profile {result.profile}: {result.profile_reason}",
        [
            ("arm", False),
            ("profile's weight", True),
            ("weight here", True),
            ("candidates by", False),
            ("", False),
        ],
        [
            (
                arm.arm,
                f"{arm.configured:.3f}",
                f"{arm.weight:.3f}" if arm.weight else "",
                arm.how,
                arm.left_out,
            )
            for arm in result.arms
        ],
    )
    scored = "all images in scope" if result.exact else "candidates of the indexes"
    lines = [f"fusion {result.fusion}; {result.candidates} images looked at ({scored})"]
    if result.codes:
        lines.append(f"codes looked for exactly: {', '.join(result.codes)}")
    lines.append("ms: " + ", ".join(f"{name} {value:.1f}" for name, value in result.timings_ms.items()))
    for line in [*lines, *result.notes]:
        out.print(line, markup=False, highlight=False)


def _score(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"


def _read(image: Path | None) -> bytes | None:
    if image is None:
        return None
    if not image.is_file():
        raise typer.BadParameter(f"{image} is no file", param_hint="--image")
    return image.read_bytes()


def _image_id(value: str | None) -> uuid.UUID | None:
    try:
        return uuid.UUID(value) if value else None
    except ValueError:
        raise typer.BadParameter(f"{value} is no image id", param_hint="--image-id") from None


def _pages(value: str | None) -> tuple[int | None, int | None]:
    if value is None:
        return None, None
    first, dash, last = value.partition("-")
    try:
        return int(first), int(last) if dash else int(first)
    except ValueError:
        raise typer.BadParameter(f"{value}: expected 3 or 3-7", param_hint="--pages") from None


def _filters(value: str | None) -> dict[str, Any]:
    if value is None:
        return {}
    try:
        parsed = json.loads(value)
    except ValueError as error:
        raise typer.BadParameter(f"no JSON: {error}", param_hint="--filter") from None
    if not isinstance(parsed, dict):
        raise typer.BadParameter('expected an object, {"name": condition}', param_hint="--filter")
    return parsed


def _weights(values: list[str] | None) -> dict[str, float] | None:
    if not values:
        return None
    weights = {}
    for value in values:
        name, _, number = value.partition("=")
        try:
            weights[name.strip()] = float(number)
        except ValueError:
            raise typer.BadParameter(f"{value}: expected arm=number", param_hint="--weight") from None
    return weights
