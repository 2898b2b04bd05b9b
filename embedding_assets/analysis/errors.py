"""What can be wrong with an answer. Each class says by its base what to do about it (`embedding_assets.errors`)."""

from __future__ import annotations

from embedding_assets.errors import EmbeddingAssetsError, PermanentError, TransientError


class AnalysisError(EmbeddingAssetsError):
    """The answer can't be used. Only its subclasses are raised; they say whether to try again."""


class AnalysisUnreadable(AnalysisError, TransientError):  # noqa: N818 (a verdict on the answer)
    """The answer is no JSON object, or was cut off: the model may do better when asked again."""


class AnalysisBusy(AnalysisError, TransientError):  # noqa: N818
    """The answer is an error message that speaks of load, limits or time-outs."""


class AnalysisRefused(AnalysisError, PermanentError):  # noqa: N818
    """The answer is an error message of any other kind: the provider won't analyse this image."""


class AnalysisRejected(AnalysisError, PermanentError):  # noqa: N818
    """The answer is an analysis, but says too little to be worth keeping."""
