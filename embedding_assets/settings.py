"""Every setting of the project, typed, in one place.

A setting is read from the environment (`EMBEDDING_ASSETS_` and its name in capitals) or from a `.env` file in
the working directory; the environment wins. `docs/settings.md` explains each. Unknown `EMBEDDING_ASSETS_*`
names and settings that contradict each other are refused when settings are loaded, by name.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from dotenv import dotenv_values
from pydantic import AliasChoices, Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from embedding_assets.errors import SettingsError

PREFIX = "EMBEDDING_ASSETS_"
ENV_FILE = ".env"

DEFAULT_MODEL = "ViT-B-16-SigLIP2-512"
DEFAULT_PRETRAINED = "webli"
DEMO_MODEL = "demo"

_OWNER = re.compile(r"team:[A-Za-z0-9_.-]+|[A-Za-z0-9._%+-]+@[A-Za-z0-9.-]+\.[A-Za-z]{2,7}")
"""What Dagster takes for an owner (dagster._core.definitions.utils.is_valid_owner)."""

TextList = Annotated[list[str], NoDecode]
"""A list written as comma-separated text in the environment."""


class Settings(BaseSettings):
    """All settings. Immutable; make another with `load_settings(name=value)`."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX, env_file=ENV_FILE, env_file_encoding="utf-8", extra="ignore", frozen=True
    )

    # -- where things are ------------------------------------------------------------------------------------
    demo: bool = Field(False, description="Work on the demo: its own database and folders, the demo model.")
    database_url: SecretStr | None = Field(
        None,
        validation_alias=AliasChoices(f"{PREFIX}DATABASE_URL", "DATABASE_URL", "database_url"),
        description="Postgres with pgvector. Unset: the embedded server under `var_dir`.",
    )
    direct_database_url: SecretStr | None = Field(
        None,
        description="The same database past its transaction pooler, for index builds. Unset: `database_url`.",
    )
    dagster_database_url: SecretStr | None = Field(
        None, description="Postgres of Dagster's own storage. Unset: `<database>_dagster` on the same server."
    )
    var_dir: Path = Field(Path("var"), description="Folder for everything that the project makes on disk.")
    landing_root: str = Field(
        "", description="Where new documents land: folder or URL. Default: `<var_dir>/landing`."
    )
    image_store_root: str = Field(
        "", description="Where image bytes are kept: folder or URL. Default: `<var_dir>/images`."
    )
    allowed_roots: TextList = Field(
        [], description="Folders besides the landing root in which the paths of posted images may lie."
    )

    # -- ingest ----------------------------------------------------------------------------------------------
    fetch_urls: bool = Field(False, description="Whether images may be posted by URL.")
    allowed_url_hosts: TextList = Field([], description="Hosts that posted URLs may name.")
    url_timeout_s: float = Field(
        30.0, gt=0, le=600, description="Seconds for one URL, all redirects included."
    )
    max_image_bytes: int = Field(64 * 2**20, gt=0, description="A larger image file is rejected (bytes).")
    max_image_pixels: int = Field(100_000_000, gt=0, description="An image with more pixels is rejected.")
    min_image_side: int = Field(64, ge=1, description="An image with a shorter side is skipped (pixels).")
    pdf_images: Literal["embedded", "pages", "auto"] = Field(
        "embedded",
        description="`embedded`: the raster images of a PDF; `pages`: every page rendered; "
        "`auto`: embedded images, and a page without any is rendered.",
    )
    pdf_render_dpi: int = Field(150, ge=36, le=600, description="Resolution of rendered pages.")
    pdf_timeout_s: float = Field(300.0, gt=0, description="Seconds that one PDF may take to be read.")
    pdf_memory_mb: int = Field(2048, ge=256, description="Memory that the PDF reader may use (MiB).")

    # -- encoder ---------------------------------------------------------------------------------------------
    slig_model: str = Field(
        DEFAULT_MODEL, description="open_clip model name, `hf-hub:...`, `local-dir:...`, or `demo`."
    )
    slig_pretrained: str = Field(
        DEFAULT_PRETRAINED, description="open_clip pretrained tag; not used by hf-hub:, local-dir: and demo."
    )
    slig_device: str = Field("auto", description="`auto`, `cpu`, `cuda`, `cuda:1`, `mps`, ...")
    slig_dtype: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        "auto", description="Number format of the model. `auto` takes the fastest that passes a self-check."
    )
    aspect_method: Literal["subspace", "blend"] = Field(
        "subspace",
        description="How colour, texture, style and material vectors are made from the visual one.",
    )
    decode_threads: int = Field(
        0, ge=0, le=64, description="Threads that decode images; 0: one per core, 8 at most."
    )
    hf_token: SecretStr | None = Field(
        None,
        validation_alias=AliasChoices(f"{PREFIX}HF_TOKEN", "HF_TOKEN", "hf_token"),
        description="Token for weights of gated Hugging Face repositories.",
    )

    # -- text vectors ----------------------------------------------------------------------------------------
    text_provider: Literal["local", "voyage"] = Field(
        "local", description="Who embeds texts: `local` (WordLlama, in process) or `voyage` (Voyage AI)."
    )
    voyage_api_key: SecretStr | None = Field(
        None,
        validation_alias=AliasChoices(f"{PREFIX}VOYAGE_API_KEY", "VOYAGE_API_KEY", "voyage_api_key"),
        description="Key of the Voyage AI account.",
    )
    voyage_model: str = Field(
        "voyage-3.5", min_length=1, description="Model that Voyage AI embeds texts with."
    )
    voyage_dimension: Literal[256, 512, 1024, 2048] = Field(
        1024, description="Numbers in a Voyage AI vector."
    )
    voyage_base_url: str = Field("", description="Where Voyage AI is reached. Default: its own address.")
    voyage_timeout_s: float = Field(
        60.0, gt=0, le=600, description="Seconds to wait for Voyage AI's connection or answer."
    )
    voyage_requests_per_minute: int = Field(
        2000, ge=0, description="The account's quota of requests; 0: none."
    )
    voyage_tokens_per_minute: int = Field(
        8_000_000, ge=0, description="The account's quota of tokens; 0: none."
    )

    text_batch_size: int = Field(
        200, ge=1, le=1000, description="Texts embedded and committed together, token limits permitting."
    )

    # -- vision analysis -------------------------------------------------------------------------------------
    vision_provider: Literal["local", "qwen", "off"] = Field(
        "local", description="Who analyses images: `local` (in process), `qwen` (a hosted model), or `off`."
    )
    vision_ocr: bool = Field(True, description="Whether the local analyser reads text in images.")
    qwen_base_url: str = Field(
        "", description="OpenAI-compatible endpoint, up to and without /chat/completions."
    )
    qwen_api_key: SecretStr | None = Field(
        None,
        validation_alias=AliasChoices(
            f"{PREFIX}QWEN_API_KEY", "QWEN_API_KEY", "DASHSCOPE_API_KEY", "qwen_api_key"
        ),
        description="Key of the endpoint; unset for a server that asks for none.",
    )
    qwen_model: str = Field(
        "Qwen3-VL-32B-Instruct", min_length=1, description="Vision model, as the endpoint names it."
    )
    qwen_timeout_s: float = Field(
        120.0, gt=0, le=3600, description="Seconds to wait for the endpoint's connection or answer."
    )
    qwen_concurrency: int = Field(8, ge=1, le=256, description="Images analysed at once.")
    qwen_max_image_side: int = Field(
        1024, ge=64, le=8192, description="A larger image is sent smaller (pixels of its longer side)."
    )
    qwen_requests_per_minute: int = Field(0, ge=0, description="The account's quota of requests; 0: none.")
    qwen_tokens_per_minute: int = Field(0, ge=0, description="The account's quota of tokens; 0: none.")

    # -- batches, retries, coverage --------------------------------------------------------------------------
    batch_size: int = Field(20, ge=1, le=10_000, description="Images encoded and committed together.")
    max_retries: int = Field(3, ge=0, le=10, description="Attempts after an image's first, 2, 4, 8 s apart.")
    min_coverage: float = Field(
        0.95, ge=0, le=1, description="Embedded / (all - skipped) that a document needs to be materialized."
    )
    max_throttle_wait_s: float = Field(
        3600.0,
        gt=0,
        description="Seconds that one batch waits in all for a throttling provider before it fails.",
    )
    batches_per_step: int = Field(
        0,
        ge=0,
        description="Batches in one Dagster step; 0: as many as take about 5 s at the measured speed.",
    )
    documents_per_run: int = Field(
        50, ge=1, le=1000, description="Documents in one run of a backfill or sensor."
    )
    coverage_history_days: int = Field(
        400, ge=1, description="Days for which hourly coverage is kept in `coverage_history`."
    )
    supported_partitions: int = Field(
        100_000, ge=1, description="Documents that one code location is meant for; a warning comes at 80 %."
    )

    # -- search ----------------------------------------------------------------------------------------------
    search_candidates: int = Field(
        100, ge=100, le=1000, description="Nearest images that a search asks of each arm's index."
    )
    search_timeout_s: float = Field(
        10.0, gt=0, le=600, description="Seconds that one statement of a search may take."
    )
    search_connections: int = Field(
        2, ge=1, le=7, description="Connections that one search uses at once while no other one is running."
    )
    query_cache_size: int = Field(
        1000, ge=0, le=1_000_000, description="Vectors of query texts that a process keeps."
    )

    # -- vector indexes --------------------------------------------------------------------------------------
    index_min_rows: int = Field(
        1_000, ge=0, description="A collection with fewer vectors gets no index: scanning it is fast."
    )
    index_halfvec: bool = Field(
        True,
        description="Whether indexes hold 16-bit numbers: half the size; vectors themselves stay 32-bit.",
    )
    index_m: int = Field(
        16, ge=2, le=100, description="Neighbours that HNSW keeps for each vector and layer."
    )
    index_ef_construction: int = Field(
        64, ge=4, le=1000, description="Candidates that HNSW looks at for each vector while it is built."
    )
    index_memory_mb: int = Field(
        1024, ge=64, description="Memory that the server may use to build one index (MiB)."
    )
    index_workers: int = Field(
        0,
        ge=0,
        le=64,
        description="Processes that the server builds an index with beside the first; 0: auto.",
    )

    # -- sensors ---------------------------------------------------------------------------------------------
    documents_per_tick: int = Field(
        1000, ge=1, le=10_000, description="Documents that one tick of a sensor requests, at most."
    )
    landing_settle_s: float = Field(
        10.0, ge=0, le=86_400, description="Seconds that a landed document must look the same to be taken."
    )
    removal_limit_share: float = Field(
        0.1, ge=0, le=1, description="Share of the documents that may vanish from the landing root at once."
    )
    removal_limit_count: int = Field(
        10, ge=0, description="So many documents may always vanish at once, whatever their share."
    )
    retry_max_attempts: int = Field(
        24, ge=0, description="Attempts of an image, over all runs, before the retry sensor leaves it alone."
    )

    # -- operations ------------------------------------------------------------------------------------------
    alert_webhook_url: SecretStr | None = Field(
        None, description="Where failed runs are reported by POST, besides the log. Unset: only the log."
    )
    alert_timeout_s: float = Field(10.0, gt=0, le=60, description="Seconds for one such POST.")
    dagster_url: str = Field(
        "",
        description="Address of the Dagster UI in alerts. Default: `http://<dagster_host>:<dagster_port>`.",
    )
    keep_run_files_days: float = Field(
        7.0, gt=0, description="Days that files of ended runs (op outputs, compute logs) are kept."
    )

    # -- services --------------------------------------------------------------------------------------------
    dagster_host: str = Field("127.0.0.1", description="Address that the Dagster UI listens on.")
    dagster_port: int = Field(3000, ge=1, le=65535, description="Port of the Dagster UI.")
    api_host: str = Field(
        "127.0.0.1", min_length=1, description="Address that the API and its page listen on."
    )
    api_port: int = Field(8000, ge=1, le=65535, description="Port of the API and its page.")
    api_requests_per_minute: int = Field(
        1200, ge=0, le=1_000_000, description="Requests a minute that each API key may send; 0: no limit."
    )
    api_max_body_mb: int = Field(
        80, ge=1, le=4096, description="A larger request is refused (MiB), uploads included."
    )
    api_timeout_s: float = Field(60.0, gt=0, le=3600, description="Seconds that one request may take.")
    asset_owners: TextList = Field(
        ["team:catalogue"],
        description="Who owns the assets, as the Dagster UI shows it: e-mail addresses or `team:name`.",
    )
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field("INFO", description="How much is logged.")

    @field_validator("allowed_roots", "allowed_url_hosts", "asset_owners", mode="before")
    @classmethod
    def _split_list(cls, value: Any) -> Any:
        if isinstance(value, str):
            return [part.strip() for part in value.split(",") if part.strip()]
        return value

    @field_validator("asset_owners")
    @classmethod
    def _owners(cls, value: list[str]) -> list[str]:
        for owner in value:
            if not _OWNER.fullmatch(owner):
                raise ValueError(f"{owner!r}: expected an e-mail address or team:name")
        return value

    @field_validator("database_url", "dagster_database_url", "direct_database_url")
    @classmethod
    def _postgres_only(cls, value: SecretStr | None) -> SecretStr | None:
        if value is None or not value.get_secret_value():
            return None
        scheme = value.get_secret_value().partition("://")[0].split("+", 1)[0]
        if scheme not in {"postgresql", "postgres"}:
            # What came instead is not shown: without a scheme, it may begin with the password.
            raise ValueError("expected a URL like postgresql://user:password@host:5432/database")
        return value

    @field_validator("voyage_dimension", mode="before")
    @classmethod
    def _number(cls, value: Any) -> Any:
        """A `Literal` of numbers does not take the text of an environment variable."""
        return int(value) if isinstance(value, str) and value.strip().isdigit() else value

    @field_validator("voyage_base_url", "qwen_base_url")
    @classmethod
    def _endpoint(cls, value: str) -> str:
        value = value.strip().rstrip("/")
        if not value:
            return ""
        parts = urlsplit(value)
        if parts.scheme not in {"http", "https"} or not parts.hostname:
            raise ValueError("expected an address like https://host/v1")
        if parts.username is not None or parts.password is not None:
            raise ValueError("an address holds no user or password: the key is a setting of its own")
        for path in ("/chat/completions", "/embeddings"):
            if parts.path.endswith(path):
                raise ValueError(f"expected the address without {path}: it is added to each request")
        return value

    @field_validator("alert_webhook_url")
    @classmethod
    def _webhook(cls, value: SecretStr | None) -> SecretStr | None:
        if value is None or not value.get_secret_value().strip():
            return None
        parts = urlsplit(value.get_secret_value().strip())
        if parts.scheme not in {"http", "https"} or not parts.hostname:
            # What came instead is not shown: such addresses hold a token as a rule.
            raise ValueError("expected an address like https://hooks.example.com/...")
        return SecretStr(value.get_secret_value().strip())

    @field_validator("voyage_api_key", "qwen_api_key")
    @classmethod
    def _no_empty_key(cls, value: SecretStr | None) -> SecretStr | None:
        return value if value is not None and value.get_secret_value().strip() else None

    @model_validator(mode="before")
    @classmethod
    def _demo_profile(cls, values: Any) -> Any:
        """`demo` swaps the defaults: settings that were given explicitly must not contradict it."""
        if isinstance(values, dict) and str(values.get("demo", "")).lower() in {
            "1",
            "true",
            "t",
            "yes",
            "y",
            "on",
        }:
            model = values.setdefault("slig_model", DEMO_MODEL)
            if model != DEMO_MODEL:
                raise ValueError(
                    f"demo and slig_model={model!r} contradict each other: the demo works with the demo model "
                    f"only; unset {PREFIX}DEMO or {PREFIX}SLIG_MODEL"
                )
        return values

    @model_validator(mode="after")
    def _consistent(self) -> Settings:
        if self.allowed_url_hosts and not self.fetch_urls:
            raise ValueError(
                "allowed_url_hosts is set but fetch_urls is off: set fetch_urls=true to fetch from these hosts, "
                "or unset allowed_url_hosts"
            )
        if self.fetch_urls and not self.allowed_url_hosts:
            raise ValueError(
                "fetch_urls is on but allowed_url_hosts names no host: name the hosts to fetch from"
            )
        if self.text_provider == "voyage" and self.voyage_api_key is None:
            raise ValueError(
                "text_provider is voyage but voyage_api_key is not set: set VOYAGE_API_KEY, or text_provider=local"
            )
        if self.vision_provider == "qwen" and not self.qwen_base_url:
            raise ValueError(
                "vision_provider is qwen but qwen_base_url names no endpoint: set it, or vision_provider=local"
            )
        if self.direct_database_url is not None and self.database_url is None:
            raise ValueError(
                "direct_database_url is set but database_url is not: it is another way to the database of "
                "database_url; set DATABASE_URL, or unset direct_database_url"
            )
        if self.index_ef_construction < 2 * self.index_m:
            raise ValueError(
                f"index_ef_construction ({self.index_ef_construction}) has to be at least twice index_m "
                f"({self.index_m}): raise the one or lower the other"
            )
        if self.slig_model.startswith("local-dir:"):
            folder = Path(self.slig_model.removeprefix("local-dir:"))
            if not folder.is_dir():
                raise ValueError(
                    f"slig_model: {folder} is no folder; expected local-dir:<folder with weights>"
                )
        return self

    # -- derived ---------------------------------------------------------------------------------------------
    @property
    def home(self) -> Path:
        """Absolute folder of this profile's files: `var_dir`, or its `demo` subfolder."""
        base = self.var_dir.expanduser().absolute()
        return base / "demo" if self.demo else base

    @property
    def landing(self) -> str:
        """The landing root, as given or derived."""
        return self.landing_root or str(self.home / "landing")

    @property
    def image_store(self) -> str:
        """The image store's root, as given or derived."""
        return self.image_store_root or str(self.home / "images")

    @property
    def ui_url(self) -> str:
        """Address of the Dagster UI, without a slash at its end."""
        return self.dagster_url.rstrip("/") or f"http://{self.dagster_host}:{self.dagster_port}"

    @property
    def embedded_data(self) -> Path:
        """Data folder of the embedded Postgres (shared by the demo and the real profile)."""
        return self.var_dir.expanduser().absolute() / "postgres"

    @property
    def database_name(self) -> str:
        """Database in the embedded server."""
        return "embedding_assets_demo" if self.demo else "embedding_assets"

    @property
    def dagster_home(self) -> Path:
        """DAGSTER_HOME of the processes that the CLI starts."""
        return self.home / "dagster"


def _unknown_names(environ: Mapping[str, str | None]) -> list[str]:
    known = {f"{PREFIX}{name}".upper() for name in Settings.model_fields}
    return sorted(name for name in environ if name.upper().startswith(PREFIX) and name.upper() not in known)


def load_settings(**overrides: Any) -> Settings:
    """Reads and checks all settings.

    Args:
        overrides: settings that win over environment and `.env`, by field name.

    Raises:
        SettingsError: a name is unknown, a value is malformed, or two settings contradict each other. The
            message names the setting and never shows a secret's value.
    """
    names: dict[str, str | None] = dict(os.environ)
    if Path(ENV_FILE).is_file():
        names.update(dotenv_values(ENV_FILE))
    if unknown := _unknown_names(names):
        raise SettingsError(
            f"unknown setting{'s' if len(unknown) > 1 else ''}: {', '.join(unknown)}",
            hint="docs/settings.md lists all settings; `embedding-assets doctor --settings` prints them",
        )
    if unknown := sorted(set(overrides) - set(Settings.model_fields)):
        raise SettingsError(f"unknown setting{'s' if len(unknown) > 1 else ''}: {', '.join(unknown)}")
    try:
        return Settings(**overrides)
    except ValidationError as error:
        problems = []
        for item in error.errors(include_input=False, include_url=False):
            name = ".".join(str(part) for part in item["loc"]) or "settings"
            name = name.upper() if name.upper().startswith(PREFIX) else name
            problems.append(f"{name}: {item['msg'].removeprefix('Value error, ')}")
        raise SettingsError("; ".join(problems), hint="docs/settings.md explains every setting") from None
