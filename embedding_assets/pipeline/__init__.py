"""Getting every image of every document embedded, or listed with the reason why not.

What belongs here: retry waves, the batch core, checkpoints, planning, verification, reports, ingestion of
documents into rows, and `ImageEmbeddingService`. What does not: Dagster (`defs` is a thin layer over this),
SQL (`store`), models (`encoders`), reading of files (`ingest`).
"""
