"""Embeds the analyses that have no vector: `embedding-assets backfill-understanding`, for those who look here.

.venv/bin/python scripts/backfill_understanding_embeddings.py --workspace shop --dry-run
"""

import sys

from embedding_assets.cli import main

if __name__ == "__main__":
    sys.argv[1:1] = ["backfill-understanding"]
    main()
