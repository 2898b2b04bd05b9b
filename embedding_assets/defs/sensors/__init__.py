"""Sensors: what the daemon looks at again and again. Each has one duty.

What belongs here: turning what `pipeline` found into run requests, skip reasons and log lines. What does not: how
it is found. No sensor uses declarative automation: evaluating 100,000 partitions takes half a minute a tick.
"""
