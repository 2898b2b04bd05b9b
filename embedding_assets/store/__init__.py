"""Postgres: schema, documents, images, failures, embedding spaces, and vectors in vecs collections.

What belongs here: SQL, and functions that take a connection inside a transaction. Each of them is scoped to a
workspace, except the maintenance functions whose names say so. What does not: deciding what to embed or to
retry (`pipeline`), and anything that keeps state in a database session: a transaction pooler may stand
between.
"""
