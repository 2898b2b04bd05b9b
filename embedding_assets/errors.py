"""What can go wrong, by what has to be done about it.

Every error that this package raises on purpose has an `ErrorClass`; the batch core acts on the class and on
nothing else. What belongs here: the classes, and `classify` for errors of other libraries. What does not:
retry loops (`pipeline`), messages for people (where the error is raised).
"""

from __future__ import annotations

from enum import Enum


class ErrorClass(str, Enum):
    """What to do about an error."""

    TRANSIENT = "transient"
    """Try again after a wait; it counts as one of the item's attempts."""
    THROTTLED = "throttled"
    """Wait as long as the provider says, then send the same batch again; costs no attempt."""
    TOO_LARGE = "too_large"
    """The batch is too big for the device or provider: halve it."""
    PERMANENT = "permanent"
    """Something in the batch can never succeed: find it, record it, go on with the others."""
    FATAL = "fatal"
    """Nothing can succeed before a person acts: stop the run, and let nothing retry it."""


class EmbeddingAssetsError(Exception):
    """Base of all errors raised on purpose. `hint` says what to do about it, in one sentence."""

    error_class: ErrorClass = ErrorClass.PERMANENT

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class TransientError(EmbeddingAssetsError):
    """May succeed when tried again: a time-out, a reset connection, a busy service."""

    error_class = ErrorClass.TRANSIENT


class IndexBuildRunning(TransientError):  # noqa: N818
    """Another process is building the vector indexes; there is one builder at a time in a database."""


class InfrastructureError(TransientError):
    """What every batch needs is gone (the database, the model's device): no image is to blame.

    Never counted against an image. It leaves the batch core at once, and the Dagster op that ran the batch
    retries as a whole, so that image retries and op retries do not multiply.
    """


class ThrottledError(EmbeddingAssetsError):
    """The provider asks for patience. `retry_after` is in seconds; None where it did not say."""

    error_class = ErrorClass.THROTTLED

    def __init__(self, message: str, *, retry_after: float | None = None, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.retry_after = retry_after


class TooLargeError(EmbeddingAssetsError):
    """The batch does not fit: out of device memory, or over the provider's request limit."""

    error_class = ErrorClass.TOO_LARGE


class PermanentError(EmbeddingAssetsError):
    """This item can never succeed as it is."""

    error_class = ErrorClass.PERMANENT


class ImageRejected(PermanentError):  # noqa: N818 (a verdict on the input, not a fault of the program)
    """The image can't be used: broken, over a limit, of an unknown format, outside the allowed roots."""


class ImageSkipped(PermanentError):  # noqa: N818
    """The image is sound but not worth embedding (smaller than the configured side, say)."""


class DocumentError(PermanentError):
    """The document can't be read: encrypted, empty, broken, or its reader crashed or ran out of time."""


class FatalError(EmbeddingAssetsError):
    """The run has to stop until a person acts."""

    error_class = ErrorClass.FATAL


class SettingsError(FatalError):
    """A setting is unknown, malformed or contradicts another one; the message names it."""


class ModelUnavailable(FatalError):  # noqa: N818
    """The configured model or its weights can't be had."""


class SpaceMismatch(FatalError):  # noqa: N818
    """The configured model makes vectors of another embedding space than the active one."""


class SchemaError(FatalError):
    """The database schema is not the one that this version needs."""


class StoreUnavailable(InfrastructureError):  # noqa: N818
    """The database did not answer, or broke the connection."""


_TOO_LARGE_NAMES = {"OutOfMemoryError", "CUDAOutOfMemoryError"}


def classify(error: BaseException) -> ErrorClass:
    """The class of any error, ours or another library's.

    Args:
        error: what was raised.

    Returns:
        Our own errors say their class. Of the rest: memory exhausted is `TOO_LARGE` (torch's by name, so that
        this module never imports torch), time-outs, connection and other operating-system errors are
        `TRANSIENT`, and anything else is `PERMANENT`: trying again can't mend a ValueError, and the batch core
        isolates the item that causes it.
    """
    if isinstance(error, EmbeddingAssetsError):
        return error.error_class
    if isinstance(error, MemoryError) or type(error).__name__ in _TOO_LARGE_NAMES:
        return ErrorClass.TOO_LARGE
    if isinstance(error, FileNotFoundError | IsADirectoryError | NotADirectoryError):
        return ErrorClass.PERMANENT
    if isinstance(error, TimeoutError | ConnectionError | OSError):
        return ErrorClass.TRANSIENT
    return ErrorClass.PERMANENT
