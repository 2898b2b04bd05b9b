"""What an image shows, in words: the analysis schema, its providers, and the text made of an analysis.

What belongs here: the schema (`schema`), reading providers' answers (`parsing`), the analysers (`local` and those
of remote providers), and the text template (`to_text`). What does not: retries, batches and failure records
(`pipeline`), storage (`store`), turning the text into a vector (`encoders`). Importing this package loads no
model library; the analysers load theirs when first used.
"""
