"""Coverage over time as a picture."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from datetime import datetime

from embedding_assets.store.coverage_history import CoverageTotal


def plot_coverage(history: Mapping[str, Sequence[tuple[datetime, CoverageTotal]]]) -> bytes:
    """A PNG of two plots with one line a stage: coverage in percent, and images that are missing.

    Args:
        history: stage -> (when, sums), oldest first.
    """
    # Loaded only when drawn. `Figure` by itself needs neither pyplot's global state nor a display.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 4.8), dpi=80, layout="constrained")
    canvas = FigureCanvasAgg(figure)
    share, missing = figure.subplots(2, 1, sharex=True)
    for stage, points in history.items():
        when = [moment for moment, _ in points]
        style = {"label": stage, "marker": "." if len(points) < 50 else ""}
        share.plot(when, [100 * total.ratio for _, total in points], **style)
        missing.plot(when, [total.missing for _, total in points], **style)
    share.set_ylabel("coverage (%)")
    share.set_ylim(bottom=0, top=102)
    missing.set_ylabel("images missing")
    missing.set_ylim(bottom=0)
    for axes in (share, missing):
        axes.grid(alpha=0.3)
    share.legend(loc="lower left", fontsize="small")
    figure.autofmt_xdate()
    file = io.BytesIO()
    canvas.print_png(file)  # type: ignore[no-untyped-call]
    return file.getvalue()
