"""The command `evaluate`: how good searches are on queries whose answers are known."""

from __future__ import annotations

import math
from collections.abc import Sequence
from enum import Enum
from pathlib import Path
from typing import Annotated, Any

import pandas as pd
import typer

from embedding_assets.cli.documents import DEFAULT_WORKSPACE
from embedding_assets.cli.judged import build_judged_catalogue, judged_set, judged_settings
from embedding_assets.cli.output import err, out, print_json, print_table
from embedding_assets.demo.judged import WORKSPACE
from embedding_assets.demo.judged_queries import ASPECT_FAMILIES, GATE_FAMILIES
from embedding_assets.errors import PermanentError
from embedding_assets.search.arms import ARMS
from embedding_assets.search.assembly import open_search_engine
from embedding_assets.search.engine import SearchEngine
from embedding_assets.search.evaluation import MEASURES, NDCG, by_family, engine_systems, judge, lead_over
from embedding_assets.search.judged_file import JudgedSet, read_judged_set
from embedding_assets.search.profiles import AUTO
from embedding_assets.settings import load_settings
from embedding_assets.store.database import open_database


class Split(str, Enum):
    """Which half of the queries."""

    GATE = "gate"
    TUNING = "tuning"
    ALL = "all"


def register(app: typer.Typer) -> None:
    """Adds the command."""
    app.command()(evaluate)


def evaluate(
    judged: Annotated[
        Path | None,
        typer.Option(
            "--judged", help="Your own judged queries (JSON). Without it: the drawn judged catalogue."
        ),
    ] = None,
    workspace: Annotated[str | None, typer.Option("--workspace", "-w", help="Workspace of --judged.")] = None,
    split: Annotated[Split, typer.Option("--split", help="Which half of the queries.")] = Split.GATE,
    aspects: Annotated[
        bool,
        typer.Option("--aspects", help="Of the drawn catalogue: the queries that compare aspect vectors."),
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Measure search: nDCG@10, recall@10 and MRR@10 of each arm by itself, and of all of them fused."""
    if judged is not None and aspects:
        raise typer.BadParameter("goes with the drawn catalogue, not with --judged", param_hint="--aspects")
    if judged is None and workspace is not None:
        raise typer.BadParameter("goes with --judged", param_hint="--workspace")
    if judged is not None:
        name = workspace or DEFAULT_WORKSPACE
        engine, queries = _own(judged, name, split)
    else:
        name = WORKSPACE
        engine, queries = _drawn(ASPECT_FAMILIES if aspects else GATE_FAMILIES, split)
    if not queries.queries:
        raise PermanentError(f"{judged} has no queries of split {split.value}", hint="try --split all")
    results = judge(queries.queries, engine_systems(engine, name), relevant_from=queries.relevant_from)
    leads = lead_over(results, AUTO, ARMS)
    if as_json:
        print_json(
            {
                "judged": str(judged or "drawn catalogue"),
                "workspace": name,
                "split": split.value,
                "queries": len(queries.queries),
                "relevant_from": queries.relevant_from,
                "results": results_as_rows(results),
                "leads": _rows(leads.reset_index()),
            }
        )
        return
    for measure in MEASURES:
        print_table(measure, *_table(by_family(results, measure)))
    if not aspects:  # which aspect is meant, a picture does not say
        print_table(f"{NDCG}: {AUTO} against the best single arm", *_table(leads))
    out.print(f"{len(queries.queries)} queries, split {split.value}", highlight=False)


def _own(path: Path, workspace: str, split: Split) -> tuple[SearchEngine, JudgedSet]:
    settings = load_settings()
    database = open_database(settings)
    with database.transaction() as connection:
        read = read_judged_set(connection, workspace, path)
    chosen = tuple(query for query in read.queries if split is Split.ALL or query.split == split.value)
    return open_search_engine(settings, database), JudgedSet(chosen, read.relevant_from)


def _drawn(families: Sequence[str], split: Split) -> tuple[SearchEngine, JudgedSet]:
    settings = judged_settings(load_settings().var_dir)
    err.print("Judged catalogue: drawn and embedded where it is not there yet, which takes about a minute")
    database, _ = build_judged_catalogue(settings)
    chosen = judged_set(database, families, None if split is Split.ALL else split.value)
    return open_search_engine(settings, database), chosen


def results_as_rows(results: pd.DataFrame) -> list[dict[str, Any]]:
    """Means by family and system as plain values, fit for JSON: family, system, queries, and each measure."""
    means = results.groupby(["family", "system"], sort=False).agg(
        queries=("query_id", "count"),
        **{measure: (measure, lambda values: values.mean(skipna=False)) for measure in MEASURES},
    )
    return _rows(means.reset_index())


def _rows(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Rows as plain values; None for what can't be measured."""
    return [
        {
            str(name): None if isinstance(value, float) and math.isnan(value) else value
            for name, value in row.items()
        }
        for row in table.to_dict("records")
    ]


def _table(table: pd.DataFrame) -> tuple[list[tuple[str, bool]], list[list[Any]]]:
    """Columns and cells for `print_table`: the index first, numbers with three digits."""
    columns = [("family", False), *((str(name), True) for name in table.columns)]
    cells = [[family, *map(_cell, values)] for family, *values in table.itertuples()]
    return columns, cells


def _cell(value: Any) -> Any:
    if isinstance(value, float):
        return "-" if math.isnan(value) else f"{value:.3f}"
    return value
