"""The pages: which address shows what."""

from __future__ import annotations

import uuid
from typing import Annotated, Literal
from urllib.parse import quote

from fastapi import APIRouter, Depends, File, Form, Query, Request, UploadFile
from starlette.responses import JSONResponse, RedirectResponse, Response

from embedding_assets.api.auth import COOKIE, Known, Principal, Reader, Writer, workspace_for, workspaces_of
from embedding_assets.api.problems import Problem, not_found, problem_of
from embedding_assets.api.services import Services
from embedding_assets.errors import EmbeddingAssetsError
from embedding_assets.ingest.decode import check_byte_size
from embedding_assets.ingest.limits import IngestLimits
from embedding_assets.keys import DocumentKey
from embedding_assets.pipeline.asset_stages import stages_in_use
from embedding_assets.pipeline.coverage_report import SHOWN_HISTORY
from embedding_assets.pipeline.requests import retry_failures
from embedding_assets.search.profiles import AUTO
from embedding_assets.search.request import MAX_TOP_K
from embedding_assets.store.browsing import (
    get_image,
    list_images,
    sample_images,
    summarize_documents,
)
from embedding_assets.store.coverage_history import coverage_history
from embedding_assets.store.coverage_totals import coverage_totals
from embedding_assets.store.documents import coverage_by_stage
from embedding_assets.store.failures import open_failures
from embedding_assets.store.models import FLAGS
from embedding_assets.store.stages import SLIG, VISION
from embedding_assets.web import coverage_page, document_page
from embedding_assets.web.chart import coverage_chart, throughput_chart
from embedding_assets.web.image_page import analysis_rows, vector_views
from embedding_assets.web.labels import MORE_OF, PROFILE_LABELS, STAGE_LABELS, percent
from embedding_assets.web.search_page import FIRST, SearchForm, answer_view
from embedding_assets.web.templating import Frame, page

router = APIRouter(include_in_schema=False)

SAMPLES = 32
"""Images that the search page offers to start from."""
IMAGES = 120
"""Images on a page of a document."""

HEADINGS = {
    401: "Please log in",
    403: "Not allowed",
    404: "Not found",
    405: "Not found",
    413: "Too large",
    422: "This can't be answered",
    429: "Too many requests",
    503: "Not available at the moment",
}
WorkspaceId = Annotated[str | None, Query(max_length=128)]
Arm = Literal["", "color", "texture", "style", "material"]


def frame_of(request: Request, known: Known, who: Reader, workspace_id: WorkspaceId = None) -> Frame:
    """The frame of a page: the workspace that the address names, else the one that there is most to see in."""
    return _frame(request, known, who, workspace_id)


Page = Annotated[Frame, Depends(frame_of)]


def _frame(request: Request, known: Services, who: Principal, workspace_id: str | None) -> Frame:
    theirs = workspaces_of(who, known)
    usual = known.default_workspace
    if workspace_id:
        chosen = workspace_for(who, known, workspace_id)
    elif who.workspaces is None:
        chosen = usual if usual in theirs or not theirs else theirs[0]
    else:
        chosen = usual if usual in theirs else theirs[0]
    alone = len(who.workspaces) == 1 if who.workspaces is not None else chosen == usual
    return Frame(chosen, tuple(sorted({*theirs, chosen})), not alone, COOKIE in request.cookies)


# -- search --------------------------------------------------------------------------------------------------
@router.get("/")
def search_page(
    known: Known,
    frame: Page,
    q: Annotated[str, Query(max_length=10_000)] = "",
    image_id: uuid.UUID | None = None,
    arm: Arm = "",
    profile: str = AUTO,
    document_id: Annotated[str, Query(max_length=128)] = "",
    show: Annotated[int, Query(ge=1, le=MAX_TOP_K)] = FIRST,
) -> Response:
    """The search, and its hits where the address asks for some."""
    return _search(known, frame, SearchForm(q, image_id, arm, profile, document_id, show), None)


@router.post("/")
def search_by_form(
    request: Request,
    known: Known,
    who: Reader,
    q: Annotated[str, Form(max_length=10_000)] = "",
    image: Annotated[UploadFile | str | None, File()] = None,
    image_id: Annotated[uuid.UUID | None, Form()] = None,
    arm: Annotated[Arm, Form()] = "",
    profile: Annotated[str, Form(max_length=100)] = AUTO,
    document_id: Annotated[str, Form(max_length=128)] = "",
    workspace_id: Annotated[str | None, Form(max_length=128)] = None,
    show: Annotated[int, Form(ge=1, le=MAX_TOP_K)] = FIRST,
) -> Response:
    """The form as it is sent: an uploaded image is searched by at once, the rest has an address of its own."""
    frame = _frame(request, known, who, workspace_id)
    # A profile takes the place of the one arm.
    form = SearchForm(q, image_id, arm if profile == AUTO else "", profile, document_id, show)
    most = known.settings.max_image_bytes
    content = b"" if image is None or isinstance(image, str) else image.file.read(most + 1)
    if not content:
        return RedirectResponse(frame.link("/", **form.query()), status_code=303)
    return _search(known, frame, form, content)


def _search(known: Services, frame: Frame, form: SearchForm, image: bytes | None) -> Response:
    asked = bool(form.q.strip() or form.image_id or image)
    answer, error, query_image = None, None, None
    status = 200
    workspace = frame.workspace
    with known.database.transaction() as connection:
        if form.image_id is not None and image is None:
            found = get_image(connection, workspace, form.image_id)
            if found is None:
                raise not_found("image")
            query_image = found.summary
        scope = summarize_documents(connection, workspace, [form.document_id]).get(form.document_id)
        if form.document_id and scope is None:
            raise not_found("document")
        samples = sample_images(connection, workspace, SAMPLES if not asked else 1, form.document_id or None)
    if asked and samples:
        try:
            if image is not None:
                check_byte_size(len(image), IngestLimits.from_settings(known.settings))
            result = known.search_engine.search(form.request(workspace, image))
            ids = {hit.document.document_id for hit in result.hits}
            with known.database.transaction() as connection:
                documents = summarize_documents(connection, workspace, sorted(ids))
            more = frame.link("/", **form.query(show=min(MAX_TOP_K, form.show + FIRST)))
            answer = answer_view(result, documents, form, more)
        except EmbeddingAssetsError as refusal:
            problem = problem_of(refusal)
            status, error = problem.status, _shown(problem)
    return page(
        "search.html",
        frame,
        status=status,
        section="search",
        form=form,
        asked=asked,
        answer=answer,
        error=error,
        samples=samples,
        query_image=query_image,
        document_title=scope.title or form.document_id if scope else "",
        profiles=PROFILE_LABELS,
        more_of=MORE_OF,
    )


# -- one image -----------------------------------------------------------------------------------------------
@router.get("/images/{image_id}")
def image_page(known: Known, frame: Page, image_id: uuid.UUID) -> Response:
    """All that is known of an image."""
    with known.database.transaction() as connection:
        detail = get_image(connection, frame.workspace, image_id)
        if detail is None:
            raise not_found("image")
        image = detail.summary
        document = summarize_documents(connection, frame.workspace, [image.key.document_id])
        failures = [
            failure
            for failure in open_failures(connection, frame.workspace, image.key.document_id)
            if failure.image_id == image_id
        ]
    title = document[image.key.document_id].title if image.key.document_id in document else None
    return page(
        "image.html",
        frame,
        image=image,
        detail=detail,
        name=image.caption or image.reference,
        document=title or image.key.document_id,
        document_path=f"/documents/{image.key.document_id}",
        failures=[document_page.failure_view(failure, known.settings) for failure in failures],
        vectors=vector_views(detail, failures),
        analysis=analysis_rows(detail.vision_analysis),
        skipped_vision=detail.stage_skips.get(VISION, ""),
        more_of=MORE_OF.items(),
    )


# -- coverage ------------------------------------------------------------------------------------------------
@router.get("/coverage")
def coverage(
    known: Known,
    frame: Page,
    only: Literal["", "incomplete", "failed"] = "",
    after: Annotated[str, Query(max_length=128)] = "",
) -> Response:
    """How far everything is."""
    settings = known.settings
    stages = stages_in_use(settings)
    with known.database.transaction() as connection:
        counted = coverage_by_stage(connection, frame.workspace, stages)
        whole = coverage_page.Workspace(counted, settings.min_coverage)
        shown, next_after = whole.pick(only, after)
        ids = [next(iter(row.values())).key.document_id for row in shown]
        known_documents = summarize_documents(connection, frame.workspace, ids)
        records = coverage_history(connection, frame.workspace, SHOWN_HISTORY)
        totals = coverage_totals(connection, frame.workspace, stages, settings.min_coverage)
    history = coverage_page.by_stage(records, stages)
    return page(
        "coverage.html",
        frame,
        section="coverage",
        totals=whole.totals() if whole.documents else None,
        with_failures=whole.with_failures(),
        stages=coverage_page.stage_totals(stages, totals, history),
        history=coverage_chart(coverage_page.labelled(history)),
        history_words=", ".join(
            f"{STAGE_LABELS.get(name, name)} {percent(points[-1][1].ratio)}"
            for name, points in history.items()
        ),
        throughput=throughput_chart(history, SLIG),
        documents=[
            coverage_page.document_view(
                row,
                known_documents.get(document_id),
                settings.min_coverage,
                whole.is_complete(row),
            )
            for document_id, row in zip(ids, shown, strict=True)
        ],
        only_incomplete=only == "incomplete",
        only_failed=only == "failed",
        previous_page=frame.link("/coverage", only=only) if after else "",
        next_page=frame.link("/coverage", only=only, after=next_after) if next_after else "",
    )


# -- one document --------------------------------------------------------------------------------------------
@router.get("/documents/{document_id}")
def document(
    known: Known,
    frame: Page,
    who: Reader,
    document_id: str,
    after: Annotated[int, Query(ge=-1, le=2**31 - 1)] = -1,
    notice: Literal["", "retrying", "waiting"] = "",
) -> Response:
    """A document's images, the failed ones first."""
    key = DocumentKey(frame.workspace, document_id)
    with known.database.transaction() as connection:
        summary = summarize_documents(connection, key.workspace_id, [document_id]).get(document_id)
        if summary is None:
            raise not_found("document")
        images = list_images(connection, key, after=after, limit=IMAGES)
        failures = open_failures(connection, key.workspace_id, document_id)
        progress = document_page.read_progress(connection, key, stages_in_use(known.settings), failures)
    path = f"/documents/{document_id}"
    return page(
        "document.html",
        frame,
        key=key,
        title=summary.title or document_id,
        about=document_page.about(summary),
        stages=progress.stages,
        progress=progress,
        progress_url=frame.link(f"{path}/progress"),
        retry_url=frame.link(f"{path}/retry"),
        may_retry=who.has_role("writer"),
        notice=document_page.notice_words(notice, known.settings),
        failures=[document_page.failure_view(failure, known.settings) for failure in failures],
        images=images,
        total=progress.total,
        vector_kinds=len(FLAGS),
        next_page=frame.link(path, after=images[-1].index) if len(images) >= IMAGES else "",
        dagster=document_page.dagster_url(known.settings, key),
    )


@router.get("/documents/{document_id}/progress")
def progress(known: Known, frame: Page, document_id: str) -> Response:
    """How far a document is, for the page that shows it: asked again and again while a run goes on."""
    key = DocumentKey(frame.workspace, document_id)
    with known.database.transaction() as connection:
        if not summarize_documents(connection, key.workspace_id, [document_id]):
            raise not_found("document")
        failures = open_failures(connection, key.workspace_id, document_id)
        read = document_page.read_progress(connection, key, stages_in_use(known.settings), failures)
    return JSONResponse(read.as_dict())


@router.post("/documents/{document_id}/retry")
def retry(
    request: Request,
    known: Known,
    who: Writer,
    document_id: str,
    image_id: Annotated[uuid.UUID | None, Form()] = None,
    workspace_id: WorkspaceId = None,
) -> Response:
    """Asks for runs that try a document's failures again, or those of one image; then shows the document."""
    frame = _frame(request, known, who, workspace_id)
    key = DocumentKey(frame.workspace, document_id)
    with known.database.transaction() as connection:
        if not summarize_documents(connection, key.workspace_id, [document_id]):
            raise not_found("document")
    images = None if image_id is None else [image_id]
    started = known.jobs.start(
        key.workspace_id,
        "retry",
        lambda: retry_failures(
            known.database, known.settings, key.workspace_id, document_id=document_id, image_ids=images
        ),
        job_id=None,
        asked={"document_id": document_id, "image_id": str(image_id or "")},
        created_by=who.key_id,
    )
    notice = document_page.WAITING if started.served is False else document_page.RETRYING
    return RedirectResponse(frame.link(f"/documents/{document_id}", notice=notice), status_code=303)


# -- logging in, and errors ----------------------------------------------------------------------------------
@router.get("/login")
def login(next: Annotated[str, Query(max_length=1000)] = "/", failed: Literal["", "1"] = "") -> Response:
    """The form that takes a key."""
    return page("login.html", Frame(), next=next, failed=bool(failed))


def error_page(request: Request, problem: Problem) -> Response:
    """A problem as a page; whoever has no key is asked for one."""
    if problem.status == 401 and request.method == "GET":
        target = request.url.path + (f"?{request.url.query}" if request.url.query else "")
        return RedirectResponse(f"/login?next={quote(target, safe='')}", status_code=303)
    answer = page("error.html", Frame(), status=problem.status, problem=_shown(problem))
    answer.headers.update(problem.headers)
    return answer


def _shown(problem: Problem) -> dict[str, str]:
    """A problem in words for people."""
    heading = HEADINGS.get(problem.status, "Something is wrong here")
    detail = problem.detail[:1].upper() + problem.detail[1:]
    return {"heading": heading, "detail": detail, "hint": problem.hint}
