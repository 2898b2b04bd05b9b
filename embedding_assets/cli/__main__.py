"""`python -m embedding_assets.cli`: the same command, where the console script is not on the path."""

from embedding_assets.cli.app import main

main()
