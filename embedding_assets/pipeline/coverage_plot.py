"""Coverage over time as a picture."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from datetime import datetime

import numpy as np
from PIL import Image

from embedding_assets.store.coverage_totals import CoverageTotal

COLOURS = 32


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
    share.legend(loc="lower right", fontsize="small", ncols=4)
    figure.autofmt_xdate()
    canvas.draw()  # type: ignore[no-untyped-call]
    # Few colours make a small file: Dagster keeps one for every hour.
    pixels = np.asarray(canvas.buffer_rgba())  # type: ignore[no-untyped-call]
    picture = Image.fromarray(pixels[..., :3]).quantize(COLOURS)
    file = io.BytesIO()
    picture.save(file, "PNG", optimize=True)
    return file.getvalue()
