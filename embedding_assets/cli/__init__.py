"""The `embedding-assets` command.

What belongs here: arguments, printing, exit codes. What does not: any logic that the API or Dagster would need
too. Exit codes: 0 done and coverage complete, 1 something failed or is incomplete, 2 wrong usage or settings.
"""

from embedding_assets.cli.app import main

__all__ = ["main"]
