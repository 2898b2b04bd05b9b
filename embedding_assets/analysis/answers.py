"""Finds the one JSON object in a provider's answer: plain, fenced, wrapped, or in the middle of prose."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from embedding_assets.analysis.errors import AnalysisBusy, AnalysisRefused, AnalysisUnreadable
from embedding_assets.analysis.schema import clean_text

MAX_ANSWER = 200_000
"""Characters; a longer answer is a model that does not stop."""

_FENCE = "```"
_FENCE_LANGUAGE = re.compile(r"[\w-]{0,20}\s")
_END_OF_THOUGHT = "</think>"
_WRAPPERS = (
    "result",
    "results",
    "analysis",
    "vision_analysis",
    "image_analysis",
    "data",
    "output",
    "response",
)
_MAX_UNWRAP = 4
_BUSY = re.compile(
    r"rate.?limit|too many requests|overload|busy|capacity|quota|temporar|time[d ]*.?out|try again|retry"
    r"|unavailable|internal.server|\b429\b|\b50[0234]\b",
    re.IGNORECASE,
)
_FAILED = {"error", "failed", "failure"}

IsAnalysis = Callable[[Mapping[str, Any]], bool]
"""Tells whether an object has a key of an analysis."""


def find_object(answer: str | Mapping[str, Any], is_analysis: IsAnalysis) -> Mapping[str, Any]:
    """The object that holds the analysis.

    Args:
        answer: the model's text, or an object that was parsed already.
        is_analysis: tells an analysis from a wrapper or some other object.

    Raises:
        AnalysisUnreadable: there is no JSON object in it, it was cut off, or there are several in a list.
        AnalysisBusy, AnalysisRefused: it is an error message in JSON.
    """
    value: Any = answer if isinstance(answer, Mapping) else _load(answer, is_analysis)
    for _ in range(_MAX_UNWRAP):
        if isinstance(value, str):
            value = _load(value, is_analysis)
        if isinstance(value, list):
            objects = [part for part in value if isinstance(part, Mapping)]
            if len(objects) != 1:
                raise _unreadable(f"the answer is a list of {len(objects)} objects, expected one", answer)
            value = objects[0]
        if not isinstance(value, Mapping):
            raise _unreadable("the answer is no JSON object", answer)
        _refuse_errors(value)
        inner = _unwrapped(value)
        if is_analysis(value) or inner is None:
            return value
        value = inner
    raise _unreadable("the answer is no JSON object, but wrappings only", answer)


def _unwrapped(value: Mapping[str, Any]) -> Any:
    for key in _WRAPPERS:
        inner = value.get(key)
        if isinstance(inner, Mapping | list) and inner:
            return inner
        if isinstance(inner, str) and "{" in inner:
            return inner
    return None


def _load(text: str, is_analysis: IsAnalysis) -> Any:
    if len(text) > MAX_ANSWER:
        raise _unreadable(f"the answer has {len(text)} characters, more than {MAX_ANSWER}", text)
    text = text.rpartition(_END_OF_THOUGHT)[2].strip().lstrip("\ufeff")
    if not text:
        raise AnalysisUnreadable("the answer is empty")
    for candidate in (text, *_fenced(text)):
        found, value = _parse(candidate)
        if found and isinstance(value, Mapping | list | str):
            return value
    objects = list(_balanced(text))
    for value in objects:
        if is_analysis(value) or "error" in value:
            return value
    if objects:
        return objects[0]
    raise _unreadable("the answer is no JSON object", text)


def _fenced(text: str) -> list[str]:
    """What stands between code fences, without the language's name. Splitting: a pattern could take for ever."""
    return [_FENCE_LANGUAGE.sub("", part, count=1) for part in text.split(_FENCE)[1:-1:2]]


def _balanced(text: str) -> Iterator[Mapping[str, Any]]:
    """Non-empty objects between balanced braces outside of each other, in order; braces in strings don't count.

    An object that is never closed ends the search: what it holds is part of an answer that was cut off.
    """
    position = text.find("{")
    while position >= 0:
        end = _closing(text, position)
        if end is None:
            return
        found, value = _parse(text[position : end + 1])
        if found and isinstance(value, Mapping) and value:
            yield value
        position = text.find("{", end + 1)


def _closing(text: str, start: int) -> int | None:
    depth, in_string, escaped = 0, False, False
    for index in range(start, len(text)):
        char = text[index]
        if in_string:
            if escaped:
                escaped = False
            elif char == "\\":
                escaped = True
            elif char == '"':
                in_string = False
        elif char == '"':
            in_string = True
        elif char == "{":
            depth += 1
        elif char == "}":
            depth -= 1
            if depth == 0:
                return index
    return None


def _parse(text: str) -> tuple[bool, Any]:
    """Whether it is JSON, and its value. Line breaks inside strings are let pass; NaN and infinities are null."""
    try:
        return True, json.loads(text, strict=False, parse_constant=lambda _: None)
    except (ValueError, RecursionError):
        return False, None


def _refuse_errors(value: Mapping[str, Any]) -> None:
    error = next((value[key] for key in ("error", "errors") if not _says_nothing(value.get(key))), None)
    failed = value.get("success") is False or str(value.get("status", "")).lower() in _FAILED
    if error is None and not failed:
        return
    message = clean_text(_flat(value if error is None or error is True else error), 300)
    beside = " ".join(str(value[key]) for key in ("code", "status", "type", "message") if key in value)
    if _BUSY.search(f"{message} {beside[:300]}"):
        raise AnalysisBusy(f"the provider answered with an error: {message}")
    raise AnalysisRefused(f"the provider answered with an error: {message}")


def _says_nothing(error: Any) -> bool:
    return not error or str(error).strip().lower() in {"none", "null", "n/a", "no", "false"}


def _flat(value: Any) -> str:
    try:
        return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    except (ValueError, RecursionError):
        return str(type(value).__name__)


def _unreadable(message: str, answer: object) -> AnalysisUnreadable:
    start = clean_text(answer if isinstance(answer, str) else _flat(answer), 200)
    return AnalysisUnreadable(f"{message} (it may be cut off); it begins: {start!r}")
