"""`POST /api/search`: by text, by an uploaded image, by an image of the workspace, or by text and image."""

from __future__ import annotations

import json
import uuid
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Request
from pydantic import BaseModel, Field, ValidationError
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import UploadFile

from embedding_assets.api.auth import Known, Principal, Reader, workspace_for
from embedding_assets.api.problems import Problem, ProblemError, not_found, problem
from embedding_assets.api.services import Services
from embedding_assets.api.shapes import IdText, Shape, problems
from embedding_assets.errors import PermanentError
from embedding_assets.search.request import MAX_QUERY_CHARACTERS, MAX_TOP_K, Fusion, SearchRequest
from embedding_assets.search.result import SearchResult
from embedding_assets.store.browsing import get_image
from embedding_assets.store.search_scope import MAX_CONDITIONS

router = APIRouter(tags=["search"])

ProfileName = Literal[
    "auto",
    "product_name",
    "color_finish",
    "specification",
    "texture_pattern",
    "style_aesthetic",
    "material_search",
    "balanced",
]
ArmName = Literal["text", "visual", "understanding", "color", "texture", "style", "material"]

_IN_JSON = ("filters", "weights")
"""Fields that a form sends as JSON text."""


class SearchBody(Shape):
    """What to search for. At least one of `text`, `image_id` and an uploaded image."""

    workspace_id: IdText | None = Field(None, description="Default: the only workspace of the key.")
    text: Annotated[str, Field(min_length=1, max_length=MAX_QUERY_CHARACTERS)] | None = Field(
        None, description="Free text, codes such as R10 or 60x120 included."
    )
    image_id: uuid.UUID | None = Field(None, description="An image of the workspace: more like this one.")
    document_id: IdText | None = Field(None, description="Only images of this document.")
    first_page: int | None = Field(None, ge=1, le=2**31 - 1)
    last_page: int | None = Field(None, ge=1, le=2**31 - 1)
    filters: dict[Annotated[str, Field(max_length=64)], Any] = Field(
        default_factory=dict,
        max_length=MAX_CONDITIONS,
        description="Conditions on images, `{name: value}` or `{name: {operator: value}}` with $eq, $ne, $lt, $lte, "
        "$gt, $gte, $in.",
    )
    profile: ProfileName = Field("auto", description="How much each arm counts; `auto` goes by the text.")
    weights: dict[ArmName, Annotated[float, Field(ge=0, le=1e6)]] | None = Field(
        None, description="Weight by arm, in place of a profile."
    )
    top_k: int = Field(10, ge=1, le=MAX_TOP_K, description="How many hits.")
    min_score: float | None = Field(None, ge=-1e6, le=1e6, description="Leave out hits below it.")
    fusion: Fusion = Field("convex", description="How arms are put together.")
    diversity: bool = Field(False, description="Fold near-duplicates into the best of them.")
    explain: bool = Field(
        False, description="Also say how arms counted, what each hit scored, and how long it took."
    )


class HitShape(BaseModel):
    """One found image. `scores` only with `explain`."""

    image_id: uuid.UUID
    score: float
    scores: dict[str, float | None] | None = None
    workspace_id: str
    document_id: str
    page_number: int | None
    reference: str
    caption: str | None
    width: int | None
    height: int | None
    matched_text: str | None
    matched_codes: list[str]
    duplicates: list[uuid.UUID]
    thumbnail: str = Field(description="Address of a small picture.")


class ArmShape(BaseModel):
    """What became of an arm."""

    arm: str
    configured: float
    weight: float
    left_out: str
    how: str
    encode_ms: float


class SearchAnswer(BaseModel):
    """Hits, best first. `arms`, `timings_ms` and `notes` only with `explain`."""

    hits: list[HitShape]
    profile: str
    profile_reason: str
    fusion: str
    codes: list[str]
    candidates: int
    exact: bool
    arms: list[ArmShape] | None = None
    timings_ms: dict[str, float] | None = None
    notes: list[str] | None = None


_FORM_FIELDS: dict[str, Any] = {
    "image": {"type": "string", "format": "binary", "description": "An image file to search by."},
    **{
        name: {"type": "string", "description": "As JSON text."}
        if name in _IN_JSON
        else {"type": "string", "maxLength": MAX_QUERY_CHARACTERS}
        for name in SearchBody.model_fields
    },
}


@router.post(
    "/api/search",
    response_model=SearchAnswer,
    response_model_exclude_none=False,
    responses=problems(400, 404, 415),
    openapi_extra={
        "requestBody": {
            "required": True,
            "content": {
                "application/json": {
                    "schema": {"$ref": "#/components/schemas/SearchBody"},
                    "examples": {
                        "text": {"value": {"text": "blue herringbone", "top_k": 5}},
                        "specification": {
                            "value": {"text": "matte grey porcelain R11", "profile": "auto", "explain": True}
                        },
                        "filtered": {
                            "value": {"text": "oak", "filters": {"width": {"$gte": 64}}, "diversity": True}
                        },
                    },
                },
                "multipart/form-data": {
                    "schema": {"type": "object", "properties": _FORM_FIELDS, "additionalProperties": False},
                },
            },
        }
    },
)
async def search(request: Request, who: Reader, known: Known) -> dict[str, Any]:
    """Find images by text, by an image, or by both.

    JSON for text and `image_id`; a form (`multipart/form-data`) with the file as `image` and the same fields for a
    picture of your own. The picture is looked at and forgotten.
    """
    body, image = await _read(request, known.settings.max_image_bytes)
    return await run_in_threadpool(_search, request, who, known, body, image)


def _search(
    request: Request, who: Principal, known: Services, body: SearchBody, image: bytes | None
) -> dict[str, Any]:
    workspace = workspace_for(who, known, body.workspace_id)
    if body.image_id is not None:
        _check_is_there(known, workspace, body.image_id)
    wanted = SearchRequest(
        workspace,
        text=body.text,
        image=image,
        image_id=body.image_id,
        document_id=body.document_id,
        first_page=body.first_page,
        last_page=body.last_page,
        filters=body.filters,
        profile=body.profile,
        weights=body.weights,  # type: ignore[arg-type] # names of arms are strings
        top_k=body.top_k,
        min_score=body.min_score,
        fusion=body.fusion,
        diversity=body.diversity,
    )
    try:
        result = known.search_engine.search(wanted)
    except PermanentError:
        if body.image_id is not None:  # it may have been removed since it was looked for
            _check_is_there(known, workspace, body.image_id)
        raise
    request.app.state.metrics.observe_search(result)
    return answer_of(result, explain=body.explain)


def _check_is_there(known: Services, workspace: str, image_id: uuid.UUID) -> None:
    with known.database.transaction() as connection:
        if get_image(connection, workspace, image_id) is None:
            raise not_found("image")


def answer_of(result: SearchResult, *, explain: bool) -> dict[str, Any]:
    """The answer's members; the image store's keys stay inside."""
    members = result.as_dict()
    for hit in members["hits"]:
        del hit["store_key"]
        hit["thumbnail"] = f"/api/images/{hit['image_id']}/thumbnail?workspace_id={hit['workspace_id']}"
        if not explain:
            del hit["scores"]
    if not explain:
        for name in ("arms", "timings_ms", "notes"):
            del members[name]
    return members


async def _read(request: Request, max_image_bytes: int) -> tuple[SearchBody, bytes | None]:
    """The body, from JSON or from a form, and the uploaded image."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind == "application/json":
        return _checked(await request.body()), None
    if kind != "multipart/form-data":
        raise problem(415, f"expected application/json or multipart/form-data, got {kind[:100] or 'nothing'}")
    async with request.form(max_files=1, max_fields=32, max_part_size=64 * 1024) as form:
        values: dict[str, Any] = {}
        image: bytes | None = None
        for name, value in form.multi_items():
            if name in values or (name == "image" and image is not None):
                raise _wrong(name, "given more than once")
            if isinstance(value, UploadFile):
                if name != "image":
                    raise _wrong(name, "a file is expected as `image` only")
                image = await value.read(max_image_bytes + 1)
                if len(image) > max_image_bytes:
                    raise problem(
                        413, f"the image has more than the {max_image_bytes} bytes that are allowed"
                    )
                if not image:
                    raise _wrong("image", "the file is empty")
            elif value != "":
                values[name] = _from_form(name, value)
        return _checked(values), image


def _from_form(name: str, value: str) -> Any:
    if name not in _IN_JSON:
        return value
    try:
        return json.loads(value)
    except (ValueError, RecursionError) as error:
        raise _wrong(name, "expected JSON") from error


def _checked(given: bytes | dict[str, Any]) -> SearchBody:
    try:
        if isinstance(given, bytes):
            return SearchBody.model_validate_json(given)
        return SearchBody.model_validate(given)
    except ValidationError as error:
        found = [
            (".".join(str(part) for part in item["loc"]) or "body", item["msg"])
            for item in error.errors(include_input=False, include_url=False, include_context=False)
        ]
        text = "; ".join(f"{name}: {message}" for name, message in found[:5])
        raise ProblemError(Problem(422, f"the request is not as expected: {text}", errors=found)) from None


def _wrong(name: str, message: str) -> ProblemError:
    return ProblemError(Problem(422, f"{name[:64]}: {message}", errors=[(name[:64], message)]))
