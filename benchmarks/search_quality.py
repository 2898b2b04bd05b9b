"""How well searches find what was asked for: the judged catalogue, each arm by itself and all of them fused.

    python benchmarks/search_quality.py [--quick] [--check] [--json FILE]

On the gate's half of the queries, which nothing was chosen by: nDCG@10 of fused search (`auto`) may not fall behind the
best single arm by more than 0.01 in any family, and has to lead it by 0.05 where looks and specifications are asked for
together. `--check` exits with 1 where it does not. `--quick` asks every third query.

The judged catalogue is drawn and embedded under `var/` on the first call, and reused after that.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

sys.path.insert(0, str(Path(__file__).parent))

from reporting import Bar, arguments, finish, machine, print_machine, print_table

from embedding_assets.cli.judged import build_judged_catalogue, judged_set, judged_settings
from embedding_assets.demo.judged import WORKSPACE
from embedding_assets.demo.judged_queries import ASPECT_FAMILIES, GATE_FAMILIES, REQUIRED_LEAD
from embedding_assets.search.arms import ARMS
from embedding_assets.search.assembly import open_search_engine
from embedding_assets.search.evaluation import MEASURES, NDCG, by_family, engine_systems, judge, lead_over
from embedding_assets.search.profiles import AUTO
from embedding_assets.settings import load_settings

QUICK_STEP = 3
ASPECT_SYSTEMS = ("visual", "color", "texture", "style", "material")


def main() -> None:
    """Builds, asks, prints."""
    args = arguments(__doc__).parse_args()
    settings = judged_settings(load_settings().var_dir)
    began = time.monotonic()
    database, _ = build_judged_catalogue(settings)
    built_s = time.monotonic() - began
    systems = engine_systems(open_search_engine(settings, database), WORKSPACE)

    def judged(families: Sequence[str], names: Sequence[str]) -> pd.DataFrame:
        chosen = judged_set(database, families, "gate")
        queries = chosen.queries[:: QUICK_STEP if args.quick else 1]
        return judge(queries, {name: systems[name] for name in names}, relevant_from=chosen.relevant_from)

    facts = machine("torch", "open_clip_torch", "wordllama", "ir-measures", "numpy")
    print_machine(facts)
    print(f"aspect method {settings.aspect_method}; catalogue ready after {built_s:.0f} s\n")
    began = time.monotonic()
    gate = judged(GATE_FAMILIES, list(systems))
    took_s = time.monotonic() - began
    tables = {}
    for measure in MEASURES:
        tables[measure] = _rows(by_family(gate, measure), measure)
        print_table(tables[measure])
        print()
    leads = lead_over(gate, AUTO, ARMS)
    tables["lead"] = _rows(leads, NDCG)
    print_table(tables["lead"])
    asked = len(gate)
    print(f"\n{asked:,} searches in {took_s:.0f} s\n")
    if not args.quick:
        tables["aspects"] = _rows(by_family(judged(ASPECT_FAMILIES, ASPECT_SYSTEMS)), NDCG)
        print_table(tables["aspects"])
        print()
    finish(
        {"benchmark": "search_quality", "machine": facts, "searches": asked, "seconds": took_s, **tables},
        [
            Bar(
                f"{family}: lead of {AUTO} over {leads.loc[family, 'best_system']}",
                float(lead),
                minimum=REQUIRED_LEAD[family],
            )
            for family, lead in leads["lead"].items()
        ],
        args,
    )


def _rows(table: pd.DataFrame, heading: str) -> list[dict[str, Any]]:
    """A table's rows, the family under the measure's name; "" where a system can't take such queries."""
    return [
        {
            heading: family,
            **{
                str(name): "" if pd.isna(value) else round(value, 3) if isinstance(value, float) else value
                for name, value in row.items()
            },
        }
        for family, row in table.iterrows()
    ]


if __name__ == "__main__":
    main()
