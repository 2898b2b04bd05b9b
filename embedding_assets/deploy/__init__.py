"""How the parts run together on one machine: Dagster's instance, and the processes behind `up`.

What belongs here: DAGSTER_HOME, the instance's storage, starting and stopping of processes, and the health
report of `doctor`. What does not: assets and jobs (`defs`), printing (`cli`).
"""
