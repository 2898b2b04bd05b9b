"""Documents become images: sources, PDF extraction, image validation and the image store.

What belongs here: reading landing folders, PDFs, image folders and posted lists; deciding whether an image is
sound; storing its bytes by content. What does not: the database (`store`), deciding what has changed and
writing rows (`pipeline.ingestion`), vectors (`encoders`).
"""
