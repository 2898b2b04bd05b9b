"""The pages for people: search, image, coverage, document, log in. Rendered on the server, usable without scripts.

What belongs here: which figures a page shows and how they are laid out, templates, one style sheet, a little plain
JavaScript that makes pages livelier. What does not: any logic that the API or the command line would need too
(`search`, `pipeline`, `store`), who may see what (`api.auth`), how errors are told to programs (`api.problems`).

The content security policy allows no inline script or style: lengths that depend on data are SVG attributes.
"""
