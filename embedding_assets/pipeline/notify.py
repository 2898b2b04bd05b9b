"""Telling people what they have to know: in the log, and by a webhook.

A notifier gets a report and passes it on. That it can't is worth a warning and nothing more: an alert that fails
must not fail anything else. What belongs here: reports and how they are sent. What does not: when a report is due
(`defs.sensors`).
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol

import httpx
import tenacity
from pydantic import SecretStr

from embedding_assets.settings import Settings
from embedding_assets.store.failures import OpenFailure

logger = logging.getLogger(__name__)

SHOWN_DOCUMENTS = 20
"""Documents named in a report; `documents` counts them all."""
SHOWN_FAILURES = 5
MAX_REASON = 2_000
"""Characters of the reason."""
POSTS = 3
"""Times that a report is posted, 1 and 2 s apart, where there is no answer or one of the server's faults."""


@dataclass(frozen=True)
class RunFailureReport:
    """What people are told about a failed run.

    Attributes:
        run_id, job, url: the run, its job and its page.
        assets: the assets whose steps failed; empty where the run's process died.
        reason: why, as on the run's page.
        error_class: of the error that stopped the run, where it said one.
        documents: how many documents the run was for.
        first_documents: the first of their keys.
        failures_by_class: open failures that this run recorded, counted by error class.
        first_failures: the first of them, in words.
    """

    run_id: str
    job: str
    url: str
    assets: tuple[str, ...] = ()
    reason: str = ""
    error_class: str | None = None
    documents: int = 0
    first_documents: tuple[str, ...] = ()
    failures_by_class: dict[str, int] = field(default_factory=dict)
    first_failures: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """Plain values, fit for JSON; `text` says it all in words, as chat services want it."""
        return {"event": "run_failure", "text": str(self), **asdict(self)}

    def __str__(self) -> str:
        where = f" at {', '.join(self.assets)}" if self.assets else ""
        counts = ", ".join(f"{count} {name}" for name, count in self.failures_by_class.items())
        named = ", ".join(self.first_documents)
        more = self.documents - len(self.first_documents)
        lines = [
            f"run {self.run_id} of {self.job} failed{where}: {self.url}",
            f"{self.documents} documents: {named}{f' and {more} more' if more > 0 else ''}"
            if self.documents
            else "",
            self.reason,
            f"failures: {counts}" if counts else "",
            *(f"- {failure}" for failure in self.first_failures),
        ]
        return "\n".join(line for line in lines if line)


@dataclass(frozen=True)
class RemovalRefused:
    """That documents vanished from the landing root in such numbers that nothing was removed."""

    reason: str

    def as_dict(self) -> dict[str, Any]:
        """Plain values, fit for JSON."""
        return {"event": "removal_refused", "text": str(self)}

    def __str__(self) -> str:
        return self.reason


class Report(Protocol):
    """What people are told: in words (`str`), and as plain values."""

    def as_dict(self) -> dict[str, Any]:
        """Plain values, fit for JSON: `event`, `text`, and what else there is."""


class Notifier(Protocol):
    """Passes reports on. Implement it, and return it from `open_notifiers`."""

    def notify(self, report: Report) -> None:
        """Passes the report on; may raise whatever it likes (see `notify_all`)."""


class LogNotifier:
    """Writes reports to the log."""

    def notify(self, report: Report) -> None:
        logger.error("%s", report)


class WebhookNotifier:
    """POSTs reports as JSON.

    Args:
        url: where to; kept secret.
        timeout_s: seconds for one POST.
    """

    def __init__(self, url: SecretStr, *, timeout_s: float = 10.0) -> None:
        self._url = url
        self.timeout_s = timeout_s

    def notify(self, report: Report) -> None:
        try:
            self._post(report.as_dict())
        except httpx.HTTPStatusError as error:
            # Not the error itself: it holds the address, and the address a token.
            raise RuntimeError(f"the webhook answered {error.response.status_code}") from None
        except httpx.HTTPError as error:
            raise RuntimeError(f"the webhook did not answer: {type(error).__name__}") from None

    @tenacity.retry(
        stop=tenacity.stop_after_attempt(POSTS),
        wait=tenacity.wait_exponential(multiplier=1, max=5),
        retry=tenacity.retry_if_exception(lambda error: _may_pass(error)),
        reraise=True,
    )
    def _post(self, body: dict[str, Any]) -> None:
        # Redirects are not followed: the report is for the one address.
        httpx.post(self._url.get_secret_value(), json=body, timeout=self.timeout_s).raise_for_status()


def _may_pass(error: BaseException) -> bool:
    if isinstance(error, httpx.HTTPStatusError):
        return error.response.status_code >= 500 or error.response.status_code == 429
    return isinstance(error, httpx.TransportError)


def open_notifiers(settings: Settings) -> list[Notifier]:
    """The notifiers that the settings ask for: the log, always, and the webhook where there is one."""
    notifiers: list[Notifier] = [LogNotifier()]
    if settings.alert_webhook_url is not None:
        notifiers.append(WebhookNotifier(settings.alert_webhook_url, timeout_s=settings.alert_timeout_s))
    return notifiers


def notify_all(notifiers: Sequence[Notifier], report: Report) -> list[str]:
    """Gives a report to each notifier; returns what kept it from being passed on. Raises nothing."""
    problems = []
    for notifier in notifiers:
        try:
            notifier.notify(report)
        except Exception as error:  # noqa: BLE001 (an alert that fails must fail nothing else)
            problem = f"{type(notifier).__name__}: {error}"
            logger.warning("a report was not passed on by %s", problem)
            problems.append(problem)
    return problems


def failure_in_words(failure: OpenFailure) -> str:
    """One failed image or document in a line."""
    what = failure.path or "the document"
    page = f", page {failure.page_number}" if failure.page_number else ""
    return (
        f"{failure.key} {what}{page} at {failure.stage}, {failure.error_class}, {failure.attempts} attempts: "
        f"{failure.message[:300]}"
    )


def without_secrets(words: str, settings: Settings) -> str:
    """The text with every secret of the settings replaced by stars: errors of libraries may quote one."""
    for name in type(settings).model_fields:
        value = getattr(settings, name)
        if isinstance(value, SecretStr) and len(secret := value.get_secret_value()) >= 4:
            words = words.replace(secret, "***")
    return words
