"""The class of every error: ours say it, others' are judged."""

from __future__ import annotations

import pytest

from embedding_assets import errors
from embedding_assets.errors import EmbeddingAssetsError, ErrorClass, classify


class OutOfMemoryError(RuntimeError):
    """Named as torch names its own, which is not imported here."""


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (errors.TransientError("x"), ErrorClass.TRANSIENT),
        (errors.InfrastructureError("x"), ErrorClass.TRANSIENT),
        (errors.StoreUnavailable("x"), ErrorClass.TRANSIENT),
        (errors.ThrottledError("x", retry_after=2.5), ErrorClass.THROTTLED),
        (errors.TooLargeError("x"), ErrorClass.TOO_LARGE),
        (errors.PermanentError("x"), ErrorClass.PERMANENT),
        (errors.ImageRejected("x"), ErrorClass.PERMANENT),
        (errors.ImageSkipped("x"), ErrorClass.PERMANENT),
        (errors.DocumentError("x"), ErrorClass.PERMANENT),
        (errors.FatalError("x"), ErrorClass.FATAL),
        (errors.SettingsError("x"), ErrorClass.FATAL),
        (errors.ModelUnavailable("x"), ErrorClass.FATAL),
        (errors.SpaceMismatch("x"), ErrorClass.FATAL),
        (errors.SchemaError("x"), ErrorClass.FATAL),
        (MemoryError(), ErrorClass.TOO_LARGE),
        (OutOfMemoryError("CUDA out of memory"), ErrorClass.TOO_LARGE),
        (TimeoutError(), ErrorClass.TRANSIENT),
        (ConnectionResetError(), ErrorClass.TRANSIENT),
        (ConnectionRefusedError(), ErrorClass.TRANSIENT),
        (BrokenPipeError(), ErrorClass.TRANSIENT),
        (OSError(5, "Input/output error"), ErrorClass.TRANSIENT),
        (OSError(28, "No space left on device"), ErrorClass.TRANSIENT),
        (FileNotFoundError(), ErrorClass.PERMANENT),
        (IsADirectoryError(), ErrorClass.PERMANENT),
        (NotADirectoryError(), ErrorClass.PERMANENT),
        (ValueError("x"), ErrorClass.PERMANENT),
        (KeyError("x"), ErrorClass.PERMANENT),
        (RuntimeError("x"), ErrorClass.PERMANENT),
        (ZeroDivisionError(), ErrorClass.PERMANENT),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else value.value,
)
def test_every_error_has_a_class(error: BaseException, expected: ErrorClass) -> None:
    assert classify(error) is expected


def test_all_our_errors_can_be_caught_as_one() -> None:
    ours = [
        value
        for value in vars(errors).values()
        if isinstance(value, type) and issubclass(value, Exception) and value.__module__ == errors.__name__
    ]
    assert len(ours) > 10
    assert all(issubclass(value, EmbeddingAssetsError) for value in ours)


def test_an_error_carries_its_message_and_what_to_do() -> None:
    error = errors.FatalError("the key is wrong", hint="set another one")
    assert (str(error), error.message, error.hint) == (
        "the key is wrong",
        "the key is wrong",
        "set another one",
    )
    assert errors.ThrottledError("slow down", retry_after=3).retry_after == 3
    assert errors.ThrottledError("slow down").retry_after is None
