from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

import embedding_assets
from embedding_assets.analysis.errors import AnalysisRejected
from embedding_assets.analysis.local import CONFIDENCE_CAP, LocalAnalyzer, LocalInput
from embedding_assets.analysis.ocr import read_text
from embedding_assets.analysis.protocol import ImageContext, VisionAnalyzer
from embedding_assets.analysis.schema import VisionAnalysis
from embedding_assets.analysis.to_text import analysis_to_text, is_worth_embedding
from embedding_assets.analysis.vocabulary import ATTRIBUTES, load_vocabulary
from embedding_assets.analysis.zero_shot import ZeroShotClassifier
from embedding_assets.errors import ErrorClass, ImageRejected, InfrastructureError, SettingsError
from embedding_assets_tests.analysis.drawn import WordEncoder, decode, png, swatch

BLUE = (52, 106, 196)
NOTHING = ImageContext()


def analyze(
    data: bytes, shows: str = "", context: ImageContext = NOTHING, *, ocr: bool = False, **options: Any
) -> VisionAnalysis:
    encoder = WordEncoder({data: shows} if shows else {})
    analyzer: VisionAnalyzer = LocalAnalyzer(encoder, decode, ocr=ocr, **options)
    [result] = analyzer.analyze([analyzer.prepare(data, context)])
    assert isinstance(result, VisionAnalysis), result
    return result


def test_a_swatch_with_text_end_to_end() -> None:
    data = swatch(BLUE, "Aurelia\n60x120 cm R10\n9 mm PEI 4")
    analysis = analyze(data, "porcelain herringbone matte modern", ocr=True)
    assert analysis.material_type == "porcelain"
    assert analysis.category == "tile"
    assert analysis.pattern == "herringbone"
    assert analysis.finish == "matte"
    assert analysis.design_style == "modern"
    assert analysis.colors[0] == "blue"
    assert analysis.primary_color_hex == "#346AC4"
    assert analysis.dimensions == "60x120 cm"
    assert analysis.physical_properties == {"pei_rating": "4", "slip_rating": "R10", "thickness": "9 mm"}
    assert "Aurelia" in analysis.detected_text
    assert analysis.description is not None
    assert analysis.description.startswith(
        "Matte blue porcelain tile with a herringbone pattern in modern style"
    )
    assert analysis.extra["material_source"] == "image"
    text = analysis_to_text(analysis)
    assert is_worth_embedding(text)
    assert "slip rating: R10" in text


def test_the_caption_beats_even_a_strong_guess() -> None:
    context = ImageContext(caption="Porcelain tile, marble look, polished")
    analysis = analyze(swatch(BLUE), "marble matte", context)
    assert analysis.material_type == "porcelain"
    assert analysis.material_subtype == "marble look"
    assert analysis.finish == "polished"
    assert (analysis.extra["material_source"], analysis.extra["finish_source"]) == ("text", "text")
    assert analysis.extra["guesses"]["material"]["value"] == "marble"


def test_nearby_text_beats_a_weak_guess_and_gives_way_to_a_strong_one() -> None:
    context = ImageContext(nearby_text="A floor of slate.")
    assert analyze(swatch(BLUE), "", context).material_type == "slate"
    strong = analyze(swatch(BLUE), "marble", context)
    assert (strong.material_type, strong.extra["material_source"]) == ("marble", "image")


def test_nearby_text_names_a_style_only_where_it_says_so() -> None:
    said = analyze(swatch(BLUE), "", ImageContext(nearby_text="Oak, matte finish, rustic style"))
    assert (said.material_type, said.finish, said.design_style) == ("oak", "matte", "rustic")
    running = analyze(swatch(BLUE), "", ImageContext(nearby_text="Oak floors for the modern home."))
    assert (running.material_type, running.design_style) == ("oak", None)


def test_text_that_names_several_materials_says_nothing() -> None:
    context = ImageContext(nearby_text="Also in slate and in granite. 60x60 cm. Matte.")
    assert analyze(swatch(BLUE), "marble", context).material_type == "marble"


def test_what_the_document_says_is_read_without_ocr() -> None:
    context = ImageContext(
        "Oak plank", "20x120 cm, 12 mm thick, R9, floor and wall, frost proof, OAK-00042", 3
    )
    analysis = analyze(swatch(BLUE), "", context)
    assert analysis.material_type == "oak"
    assert analysis.category == "flooring"
    assert analysis.dimensions == "20x120 cm"
    assert analysis.applications == ["floor", "wall"]
    assert analysis.physical_properties["product_code"] == "OAK-00042"
    assert analysis.detected_text == []


def test_a_guess_within_the_margin_is_not_reported() -> None:
    data = swatch(BLUE)
    context = ImageContext(nearby_text="wall tile")
    sure = analyze(data, "marble chevron", context)
    assert (sure.material_type, sure.pattern) == ("marble", "chevron")
    unsure = analyze(data, "marble chevron", context, temperature=10.0)
    assert (unsure.material_type, unsure.pattern, unsure.finish) == (None, None, None)
    assert unsure.confidence == 0.0
    assert unsure.extra["guesses"]["material"]["probability"] < 0.1


def test_confidence_never_passes_the_cap() -> None:
    context = ImageContext(caption="Modern matte porcelain tile, herringbone")
    assert analyze(swatch(BLUE), "porcelain herringbone matte modern", context).confidence == CONFIDENCE_CAP
    assert 0 < (analyze(swatch(BLUE), "marble", min_margin=0.0).confidence or 0) < CONFIDENCE_CAP


def test_an_image_of_which_little_can_be_said_is_rejected_alone() -> None:
    good, poor = swatch(BLUE), swatch((200, 30, 30))
    analyzer = LocalAnalyzer(WordEncoder({good: "marble"}), decode, ocr=False, min_margin=0.99)
    contexts = (NOTHING, ImageContext(caption="Marble slab, honed"))
    results = analyzer.analyze([analyzer.prepare(poor, contexts[0]), analyzer.prepare(good, contexts[1])])
    assert isinstance(results[0], AnalysisRejected)
    assert "colors, textures, description" in str(results[0])
    assert isinstance(results[1], VisionAnalysis)


def test_no_images_need_no_model() -> None:
    encoder = WordEncoder()
    assert LocalAnalyzer(encoder, decode).analyze([]) == []
    assert encoder.text_calls == 0


def test_bytes_that_are_no_image_are_rejected_when_prepared() -> None:
    with pytest.raises(ImageRejected):
        LocalAnalyzer(WordEncoder(), decode).prepare(b"no image", NOTHING)


def test_errors_of_the_model_concern_the_whole_call() -> None:
    class Broken(WordEncoder):
        def encode_images(self, batch: Any) -> Any:
            raise InfrastructureError("device lost")

    analyzer = LocalAnalyzer(Broken(), decode, ocr=False)
    with pytest.raises(InfrastructureError):
        analyzer.analyze([analyzer.prepare(swatch(BLUE), NOTHING)])


def test_it_says_who_it_is() -> None:
    space_id = WordEncoder.space.space_id
    analyzer = LocalAnalyzer(WordEncoder(), decode)
    assert (analyzer.provider, analyzer.model) == ("local", f"local-1/{space_id}")
    assert LocalAnalyzer(WordEncoder(), decode, ocr=False).model == f"local-1/{space_id}/no-ocr"


def test_prompts_are_embedded_once_whatever_the_threads() -> None:
    encoder = WordEncoder()
    classifier = ZeroShotClassifier(encoder, load_vocabulary())
    vectors = encoder.encode_images([b"a", b"b"])
    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(classifier.classify, [vectors] * 16))
    assert encoder.text_calls == 1
    assert all(result == results[0] for result in results)
    for guesses in results[0]:
        assert set(guesses) == set(ATTRIBUTES)
        assert all(0 <= guess.margin <= guess.probability <= 1 for guess in guesses.values())


def test_the_text_reader_needs_no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: Any) -> None:
        raise AssertionError("the network was asked for")

    monkeypatch.setattr("socket.socket.connect", refuse)
    monkeypatch.setattr("socket.getaddrinfo", refuse)
    monkeypatch.setattr("embedding_assets.analysis.ocr._reader", None)
    image = decode(swatch((214, 194, 160), "60x120 cm R10"))
    with ThreadPoolExecutor(4) as pool:
        read = list(pool.map(read_text, [image] * 4))
    assert {line.replace(" ", "") for lines in read for line in lines} == {"60x120cmR10"}


def test_text_on_a_large_picture_is_read_from_a_bounded_copy(
    caplog: pytest.LogCaptureFixture, capfd: Any
) -> None:
    small = decode(swatch((214, 194, 160), "60x120 cm R10"))
    large = small.resize((3000, 3000))
    assert "R10" in " ".join(read_text(large))
    assert read_text(decode(png(large.crop((0, 1500, 3000, 3000))))) == []
    assert read_text(small.crop((0, 300, 1, 301))) == []
    assert caplog.records == []
    assert capfd.readouterr().err == ""


def test_the_vocabulary_holds_what_the_demo_draws() -> None:
    specification = pytest.importorskip(
        "embedding_assets.demo.specification", reason="the demo is not installed"
    )
    vocabulary = load_vocabulary()
    for name, values in specification.ATTRIBUTE_VALUES.items():
        if name != "colour":
            assert set(values) <= set(vocabulary.attributes[name].values)
            for value in values:
                assert vocabulary.matchers[name].named(f"A {value.title()} thing") == [value]


def test_words_name_values_whatever_their_case_number_and_spacing() -> None:
    matchers = load_vocabulary().matchers
    assert matchers["pattern"].named("HEXAGONS, basket-weave; Brick\nBond") == [
        "hexagon",
        "basketweave",
        "brick bond",
    ]
    assert matchers["material"].named("oaken soaked MARBLES") == ["marble"]
    assert matchers["material"].named("Marble-effect porcelain, slate look") == ["porcelain"]
    assert matchers["material"].looks("Marble-effect porcelain, slate look") == ["marble", "slate"]
    assert matchers["pattern"].named("\u017ftripe\u017f") == []


def test_a_catalogue_entry_of_the_demo_is_read_completely() -> None:
    pytest.importorskip("embedding_assets.demo", reason="the demo is not installed")
    from embedding_assets.demo.specification import make_products

    for spec in make_products(40, seed=2):
        slip = f"   Slip rating {spec.slip_rating}" if spec.slip_rating else ""
        text = f"SKU {spec.sku}\n{spec.material.title()}\n{spec.size}   {spec.thickness_mm:g} mm{slip}"
        analysis = analyze(swatch(BLUE, size=64), "", ImageContext(spec.name, text))
        assert analysis.pattern == spec.pattern
        assert analysis.material_type == spec.material
        assert analysis.dimensions == spec.size
        assert analysis.physical_properties.get("slip_rating") == spec.slip_rating
        assert analysis.physical_properties["thickness"] == f"{spec.thickness_mm:g} mm"
        assert analysis.physical_properties["product_code"] == spec.sku


def test_a_broken_vocabulary_is_named(tmp_path: Path) -> None:
    path = tmp_path / "words.json"
    path.write_text('{"version": 1, "attributes": {}, "categories": {}, "applications": {}}')
    with pytest.raises(SettingsError, match=r"words.json: no attribute material") as caught:
        load_vocabulary(path)
    assert caught.value.error_class is ErrorClass.FATAL
    path.write_text("{")
    with pytest.raises(SettingsError, match=r"words\.json"):
        load_vocabulary(path)


def test_importing_the_package_loads_no_model_library() -> None:
    code = (
        "import sys, pkgutil, importlib, embedding_assets.analysis as package\n"
        "for module in pkgutil.iter_modules(package.__path__):\n"
        "    importlib.import_module(f'embedding_assets.analysis.{module.name}')\n"
        "print([name for name in ('torch', 'onnxruntime', 'cv2', 'rapidocr', 'open_clip') if name in sys.modules])"
    )
    root = Path(embedding_assets.__file__).parent.parent
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=root, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.stderr == ""
    assert done.stdout.strip() == "[]"


def test_the_demo_model_tells_what_the_demo_draws() -> None:
    """The real two towers, where the demo's model comes with the package."""
    model_files = pytest.importorskip("embedding_assets.demo.model_files", reason="the demo is not installed")
    try:
        folder = model_files.demo_model_path()
    except FileNotFoundError as error:
        pytest.skip(str(error))
    from embedding_assets.demo.specification import make_products
    from embedding_assets.demo.swatches import draw_swatch
    from embedding_assets.encoders.slig import OpenClipEncoder

    analyzer = LocalAnalyzer(OpenClipEncoder(f"local-dir:{folder}", decode=decode), decode, ocr=False)
    products = make_products(24, seed=5)
    prepared: list[LocalInput] = [analyzer.prepare(png(draw_swatch(p, 256)), NOTHING) for p in products]
    results = analyzer.analyze(prepared)
    analyses = [result for result in results if isinstance(result, VisionAnalysis)]
    assert len(analyses) == len(products)
    told = [(a.pattern, p.pattern) for a, p in zip(analyses, products, strict=True) if a.pattern]
    assert len(told) >= 12
    assert sum(said == true for said, true in told) >= 0.6 * len(told)
