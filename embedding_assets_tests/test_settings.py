"""Settings: read from environment and `.env`, refused by name where wrong, and discreet about secrets."""

from __future__ import annotations

import traceback
from pathlib import Path

import pytest

from embedding_assets.errors import SettingsError
from embedding_assets.settings import PREFIX, Settings, load_settings

URL = "postgresql://user:hush-hush@db.example:5432/shop"


def test_defaults_need_no_environment(tmp_path: Path) -> None:
    settings = load_settings()
    assert settings.database_url is None
    assert settings.batch_size == 20
    assert settings.max_retries == 3
    assert settings.min_coverage == 0.95
    assert settings.home == tmp_path / "var"
    assert settings.landing == str(tmp_path / "var" / "landing")


def test_every_setting_says_what_it_is_for() -> None:
    assert [name for name, field in Settings.model_fields.items() if not field.description] == []


def test_the_environment_wins_over_the_file_and_arguments_over_both(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / ".env").write_text(
        f"{PREFIX}BATCH_SIZE=7\n{PREFIX}MAX_RETRIES=1\n{PREFIX}PDF_RENDER_DPI=72\n"
    )
    monkeypatch.setenv(f"{PREFIX}MAX_RETRIES", "2")
    monkeypatch.setenv(f"{PREFIX}PDF_RENDER_DPI", "100")
    settings = load_settings(pdf_render_dpi=200)
    assert (settings.batch_size, settings.max_retries, settings.pdf_render_dpi) == (7, 2, 200)


def test_names_in_the_environment_may_be_lower_case(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("embedding_assets_batch_size", "9")
    assert load_settings().batch_size == 9


@pytest.mark.parametrize("where", ["environment", ".env"])
def test_unknown_names_are_refused_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    wrong = (f"{PREFIX}BATCHSIZE", f"{PREFIX}COLOUR")
    if where == ".env":
        (tmp_path / ".env").write_text("\n".join(f"{name}=1" for name in wrong) + "\nOTHER=1\n")
    else:
        for name in wrong:
            monkeypatch.setenv(name, "1")
    with pytest.raises(SettingsError, match=f"unknown settings: {wrong[0]}, {wrong[1]}$") as raised:
        load_settings()
    assert raised.value.hint


def test_other_programs_names_are_not_ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / ".env").write_text("PGPASSWORD=x\nDAGSTER_HOME=/tmp\nexport FOO='bar'\n# comment\n")
    monkeypatch.setenv("EMBEDDING_OTHER", "x")
    load_settings()


def test_an_unknown_argument_is_refused_by_name() -> None:
    with pytest.raises(SettingsError, match="unknown setting: batchsize"):
        load_settings(batchsize=3)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("BATCH_SIZE", "0"),
        ("BATCH_SIZE", "many"),
        ("MIN_COVERAGE", "1.5"),
        ("MAX_RETRIES", "-1"),
        ("PDF_IMAGES", "none"),
        ("SLIG_DTYPE", "float8"),
        ("DAGSTER_PORT", "70000"),
        ("DEMO", "perhaps"),
        ("LOG_LEVEL", "LOUD"),
    ],
)
def test_malformed_values_are_refused_by_the_settings_name(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(PREFIX + name, value)
    with pytest.raises(SettingsError, match=f"(?i){name}"):
        load_settings()


@pytest.mark.parametrize("spelling", ["1", "true", "yes", "on", "TRUE", "t", "y"])
def test_the_demo_brings_its_own_model_database_and_folders(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, spelling: str
) -> None:
    monkeypatch.setenv(f"{PREFIX}DEMO", spelling)
    settings = load_settings()
    assert settings.demo
    assert settings.slig_model == "demo"
    assert settings.database_name == "embedding_assets_demo"
    assert settings.home == tmp_path / "var" / "demo"
    assert settings.embedded_data == tmp_path / "var" / "postgres"


def test_without_the_demo_its_defaults_stay_away() -> None:
    settings = load_settings(demo=False)
    assert settings.slig_model != "demo"
    assert settings.database_name == "embedding_assets"


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ({"demo": True, "slig_model": "ViT-B-32"}, ["demo", "slig_model"]),
        ({"allowed_url_hosts": "cdn.example"}, ["allowed_url_hosts", "fetch_urls"]),
        ({"fetch_urls": True}, ["fetch_urls", "allowed_url_hosts"]),
        ({"slig_model": "local-dir:/not/there"}, ["slig_model", "/not/there"]),
        ({"direct_database_url": URL}, ["direct_database_url", "database_url is not"]),
        ({"index_m": 40}, ["index_ef_construction", "index_m", "64", "40"]),
    ],
)
def test_contradictions_are_refused_with_both_names(given: dict[str, object], named: list[str]) -> None:
    with pytest.raises(SettingsError) as raised:
        load_settings(**given)
    assert all(name in str(raised.value) for name in named)


def test_lists_are_written_with_commas(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(f"{PREFIX}ALLOWED_ROOTS", " /a, /b ,,")
    monkeypatch.setenv(f"{PREFIX}ALLOWED_URL_HOSTS", "cdn.example")
    monkeypatch.setenv(f"{PREFIX}FETCH_URLS", "true")
    settings = load_settings()
    assert settings.allowed_roots == ["/a", "/b"]
    assert settings.allowed_url_hosts == ["cdn.example"]


@pytest.mark.parametrize("name", ["DATABASE_URL", f"{PREFIX}DATABASE_URL"])
@pytest.mark.parametrize("where", ["environment", ".env"])
def test_the_usual_name_of_the_database_url_is_honoured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, where: str
) -> None:
    if where == ".env":
        (tmp_path / ".env").write_text(f"{name}={URL}\n")
    else:
        monkeypatch.setenv(name, URL)
    found = load_settings().database_url
    assert found is not None
    assert found.get_secret_value() == URL


def test_our_own_name_of_the_database_url_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", "postgresql://h/other")
    monkeypatch.setenv(f"{PREFIX}DATABASE_URL", URL)
    found = load_settings().database_url
    assert found is not None
    assert found.get_secret_value() == URL


def test_an_empty_database_url_means_the_embedded_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", "")
    assert load_settings().database_url is None


def test_the_usual_name_of_the_hub_token_is_honoured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_hush")
    found = load_settings().hf_token
    assert found is not None
    assert found.get_secret_value() == "hf_hush"


def test_secrets_are_in_no_text(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", URL)
    monkeypatch.setenv("HF_TOKEN", "hf_hush")
    settings = load_settings()
    for shown in (repr(settings), str(settings), repr(settings.model_dump()), settings.model_dump_json()):
        assert "hush" not in shown


@pytest.mark.parametrize(
    "url", ["mysql://u:hush@h/d", "u:hush@h/d", "hush", "hush://u:p@h/d", "://hush", "hush:u@postgresql://h"]
)
def test_a_refused_database_url_is_named_and_not_shown(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    monkeypatch.setenv("DATABASE_URL", url)
    monkeypatch.setenv("HF_TOKEN", "hf_hush")
    with pytest.raises(SettingsError, match="DATABASE_URL") as raised:
        load_settings()
    assert "postgresql://user:password@host:5432/database" in str(raised.value)
    assert "hush" not in f"{raised.value} {raised.value.hint}"
    lines = "".join(traceback.format_exception(raised.value)).splitlines()
    assert not [line for line in lines if "hush" in line and not line.startswith("    ")]


def test_settings_can_not_be_changed_once_made() -> None:
    settings = load_settings()
    with pytest.raises(ValueError, match="frozen"):
        settings.batch_size = 3  # type: ignore[misc]
