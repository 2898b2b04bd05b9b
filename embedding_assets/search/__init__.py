"""Finding images: queries become vectors, vectors become ranked images.

What belongs here: arms, ranking and what a result looks like. What does not: making image vectors (`pipeline`)
and SQL (`store`).
"""
