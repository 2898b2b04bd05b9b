"""What errors of the pipeline mean to Dagster, and what a document's outcome looks like in metadata.

Three things can retry: the op (its RetryPolicy), the run (run retries) and a sensor. Only
`InfrastructureError` is retried by the op, after exactly 2, 4, 8 s: `RetryRequested` overrides the policy,
whose own EXPONENTIAL would wait 2, 6, 14 s (Dagster 1.13 multiplies the delay by 2^n - 1). Everything else
fails the step at once with `allow_retries=False`: left alone, the op's policy would retry even a fault of the
program.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import dagster as dg
import pandas as pd

from embedding_assets.errors import EmbeddingAssetsError, ErrorClass, InfrastructureError, classify
from embedding_assets.pipeline.retry import wave_wait
from embedding_assets.store.documents import Coverage
from embedding_assets.store.failures import OpenFailure

OP_RETRIES = 3

INFRASTRUCTURE_RETRY = dg.RetryPolicy(max_retries=OP_RETRIES, delay=2, backoff=dg.Backoff.EXPONENTIAL)
"""Declared on ops so that the UI shows it; `translated_errors` sets the exact waits."""

SHOWN_FAILURES = 100
"""Failed images listed in a partition's metadata; the table embedding_failures has them all."""


@contextmanager
def translated_errors(
    context: dg.OpExecutionContext | dg.AssetExecutionContext | dg.AssetCheckExecutionContext,
) -> Iterator[None]:
    """Turns errors of the pipeline into what Dagster acts on."""
    try:
        yield
    except InfrastructureError as error:
        retry = context.retry_number + 1
        if retry > OP_RETRIES:
            raise as_failure(error) from error
        wait = wave_wait(retry)
        context.log.warning(f"retry {retry} of {OP_RETRIES} of this step in {wait:.0f} s: {error}")
        raise dg.RetryRequested(max_retries=OP_RETRIES, seconds_to_wait=wait) from error
    except EmbeddingAssetsError as error:
        if error.error_class is ErrorClass.FATAL:
            context.instance.add_run_tags(context.run.run_id, {fatal_tag(_asset_of(context)): "true"})
        raise as_failure(error) from error
    except Exception as error:
        raise dg.Failure(
            description=f"{type(error).__name__}: {error}",
            metadata={"error_class": classify(error).value, "error_type": type(error).__name__},
            allow_retries=False,
        ) from error


def fatal_tag(asset: str) -> str:
    """The tag of runs in which a fatal error stopped an asset: sensors ask for it before they try again."""
    return f"embedding_assets/fatal.{asset}"


def _asset_of(
    context: dg.OpExecutionContext | dg.AssetExecutionContext | dg.AssetCheckExecutionContext,
) -> str:
    """The asset, or the op where it is part of none, that a step belongs to: the first part of the step's name."""
    return context.get_step_execution_context().step.key.partition(".")[0]


def as_failure(error: EmbeddingAssetsError) -> dg.Failure:
    """A step failure that nothing retries, with the reason and what to do on the run's page."""
    hint = f"\n{error.hint}" if error.hint else ""
    return dg.Failure(
        description=f"{error.message}{hint}",
        metadata={"error_class": error.error_class.value, "error_type": type(error).__name__},
        allow_retries=False,
    )


def failure_table(failures: Sequence[OpenFailure]) -> str:
    """Failed images as a Markdown table."""
    if not failures:
        return "none"
    rows = [
        {
            "index": "" if failure.index is None else failure.index,
            "page": "" if failure.page_number is None else failure.page_number,
            "path": failure.path or "(document)",
            "stage": failure.stage,
            "class": failure.error_class,
            "attempts": failure.attempts,
            "error": failure.message.replace("|", "\\|").replace("\n", " ")[:300],
        }
        for failure in failures[:SHOWN_FAILURES]
    ]
    table = pd.DataFrame(rows).to_markdown(index=False)
    more = len(failures) - SHOWN_FAILURES
    return f"{table}\n\n... and {more} more" if more > 0 else str(table)


def count_failed(failures: Sequence[OpenFailure]) -> int:
    """Images with an open failure record, for a passing reason or for good; the document itself counts as one."""
    return len({failure.image_id for failure in failures})


def coverage_metadata(coverage: Coverage, failures: Sequence[OpenFailure]) -> dict[str, dg.MetadataValue]:
    """A document's coverage, counted from its rows, as numbers that the UI plots."""
    return {
        "images": dg.MetadataValue.int(coverage.total),
        "embedded": dg.MetadataValue.int(coverage.embedded),
        "skipped": dg.MetadataValue.int(coverage.skipped),
        "rejected": dg.MetadataValue.int(coverage.rejected),
        "missing": dg.MetadataValue.int(coverage.missing),
        "failed": dg.MetadataValue.int(count_failed(failures)),
        "coverage": dg.MetadataValue.float(round(coverage.ratio, 6)),
        "failed_images": dg.MetadataValue.md(failure_table(failures)),
    }
