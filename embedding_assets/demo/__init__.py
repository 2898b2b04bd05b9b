"""The demo: made-up products, the swatches and catalogues drawn from them, and a small model that can read them.

Everything here exists so that a first run needs no network, no key and no GPU, and so that search can be
judged against a known truth: each product is one specification, from which its swatch, its captions and its
catalogue entry all follow.

What belongs here: the product grid (`specification`), the words for it (`captions`), the drawing of swatches
(`swatches`, over `textures` and `layouts`), the catalogue writer (`catalogue`, over `pages` and `faults`), the
held-out evaluation (`evaluation`), the training script of the shipped weights (`train`), and the judged set:
`judged_catalogue` (what is drawn), `judged_queries` (what is asked, in the words of `wording`), `closeness` (what is
accepted), `judged` (which image is which product).

What does not: anything that the pipeline needs in production. No other package of this project may import from
here, except the command line's `demo` and `evaluate` commands, the benchmarks and the tests.
"""

from embedding_assets.demo.model_files import demo_model_path

__all__ = ["demo_model_path"]
