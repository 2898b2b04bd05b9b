"""Models that turn images and texts into vectors, each of one embedding space.

What belongs here: the encoder protocols, embedding spaces, and one module for each kind of encoder. What does
not: retries, batching policy and error records (`pipeline`), storage (`store`). Importing this package imports
no model library; the encoders import theirs when a model is first loaded.
"""
