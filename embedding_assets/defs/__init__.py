"""The Dagster code location: partitions, assets, jobs and resources.

What belongs here: Dagster only. Each module is a thin layer that turns run config and resources into a call of
`pipeline`, and its outcome into metadata, materializations and failures. What does not: any logic that would
be needed without Dagster.
"""
