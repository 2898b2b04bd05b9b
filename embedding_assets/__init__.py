"""Catalogue documents become searchable image vectors, with complete and provable coverage.

Packages, and which way imports point (`defs`, `cli` -> `pipeline`, `search` -> `encoders`, `ingest`, `store`
-> `settings`, `errors`): the domain packages never import dagster, and importing this package imports neither
torch nor dagster.
"""

__version__ = "0.1.0"
