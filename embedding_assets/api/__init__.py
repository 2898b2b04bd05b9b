"""The HTTP API: FastAPI over the same services that the command line and Dagster use.

What belongs here: routes, the shapes of requests and answers, who may ask for what, limits, problem details. What does
not: any logic that the command line or Dagster would need too (`pipeline`, `search`, `store`), HTML (`web`).
"""
