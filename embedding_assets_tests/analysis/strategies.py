"""Analyses with any content, for property tests."""

from __future__ import annotations

from hypothesis import strategies as st

from embedding_assets.analysis.schema import VisionAnalysis

_texts = st.one_of(
    st.text(max_size=20),
    st.sampled_from(
        ["porcelain", "oak. ", "None", "n/a", ".", "a.b", "Material: x.", "60 x 120 cm", "a\nb", "é"]
    ),
)
_optional = st.none() | _texts
_lists = st.lists(_texts, max_size=4)


SINGLE_TEXTS = (
    *("material_type", "material_subtype", "category", "subcategory", "pattern", "finish"),
    *("design_style", "dimensions", "description"),
)


def analyses() -> st.SearchStrategy[VisionAnalysis]:
    return st.builds(
        VisionAnalysis,
        **dict.fromkeys(SINGLE_TEXTS, _optional),
        **dict.fromkeys(("colors", "textures", "applications", "detected_text"), _lists),
        primary_color_hex=st.none() | st.from_regex(r"#[0-9A-Fa-f]{6}", fullmatch=True),
        physical_properties=st.dictionaries(_texts, _texts, max_size=4),
        confidence=st.none() | st.floats(0, 1),
        extra=st.dictionaries(st.text(max_size=5), st.integers() | st.text(max_size=5), max_size=3),
    )
