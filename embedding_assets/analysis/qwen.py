"""Vision analysis by Qwen3-VL, or any other vision model behind an OpenAI-compatible endpoint.

One image is one request; up to `concurrency` are on their way at once. Every refusal becomes one of our error
classes, most of them the image's own. What belongs here: the requests. What does not: wording (`qwen_prompt`),
which error means what (`qwen_errors`), reading the answer (`qwen_answer`, `parsing`), when a request may go
(`encoders.rate_limit`), retries (`pipeline`).
"""

from __future__ import annotations

import base64
import io
import json
import logging
import math
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

from PIL import Image
from pydantic import SecretStr

from embedding_assets.analysis.parsing import parse_analysis
from embedding_assets.analysis.protocol import ImageContext
from embedding_assets.analysis.qwen_answer import content_of
from embedding_assets.analysis.qwen_errors import FormatNotTaken, refusal_of_status
from embedding_assets.analysis.qwen_prompt import MAX_ANSWER_TOKENS, messages, response_format
from embedding_assets.analysis.schema import VisionAnalysis
from embedding_assets.encoders.charged_tokens import ChargedTokens, total_tokens
from embedding_assets.encoders.provider_errors import safe_text
from embedding_assets.encoders.rate_limit import RateBudget, shared_budget
from embedding_assets.errors import (
    EmbeddingAssetsError,
    FatalError,
    ImageRejected,
    SettingsError,
    ThrottledError,
    TransientError,
)

if TYPE_CHECKING:
    from openai import OpenAI

logger = logging.getLogger(__name__)

DEFAULT_MODEL = "Qwen3-VL-32B-Instruct"
JPEG_QUALITY = 90
MIN_SIDE = 32
"""Pixels: no side is made shorter than this by shrinking; endpoints refuse sides of 10 pixels and less."""
PATCH = 32
"""Pixels: Qwen3-VL reads an image in squares of this side, a token each."""
ANSWER_TOKENS = 600
"""What an answer usually takes, for the first estimate; answers correct it."""

Decode = Callable[[bytes], Image.Image]
"""Makes an RGB image of a stored file; raises ImageRejected."""


@dataclass(frozen=True)
class QwenRequest:
    """One image, ready to be sent.

    Attributes:
        image_url: JPEG as a data URL.
        context: what the document says about it.
        tokens: an estimate of the request's tokens, the answer's included.
    """

    image_url: str = field(repr=False)
    context: ImageContext
    tokens: int


class QwenAnalyzer:
    """Analyses images with a hosted vision model. Safe to use from several threads.

    Args:
        base_url: the endpoint, up to and without `/chat/completions`.
        decode: makes an RGB image of a stored file.
        api_key: kept secret; None for a server of one's own that asks for none.
        model: as the endpoint names it.
        timeout_s: seconds to wait for a connection, and for each piece of the answer.
        concurrency: requests at once.
        max_image_side: pixels; a larger image is sent smaller, at JPEG quality 90.
        requests_per_minute, tokens_per_minute: the account's quota; 0 for none.
        budget: in place of the process's shared one (tests).
    """

    provider = "qwen"

    def __init__(
        self,
        base_url: str,
        decode: Decode,
        *,
        api_key: SecretStr | str | None = None,
        model: str = DEFAULT_MODEL,
        timeout_s: float = 120.0,
        concurrency: int = 8,
        max_image_side: int = 1024,
        requests_per_minute: int = 0,
        tokens_per_minute: int = 0,
        budget: RateBudget | None = None,
    ) -> None:
        key = (api_key.get_secret_value() if isinstance(api_key, SecretStr) else api_key or "").strip()
        if not key.isascii() or (key and (not key.isprintable() or " " in key)):
            raise SettingsError("qwen_api_key (QWEN_API_KEY) holds characters that no key has")
        self._key = SecretStr(key)
        self._base_url = base_url.rstrip("/")
        self._decode = decode
        self._model = model
        self._timeout_s = timeout_s
        self._concurrency = concurrency
        self._max_image_side = max_image_side
        self._budget = budget or shared_budget(
            f"qwen {self._base_url}", key, requests_per_minute, tokens_per_minute
        )
        self._lock = threading.Lock()
        self._client: OpenAI | None = None
        self._pool: ThreadPoolExecutor | None = None
        self._takes_format = True
        self._charged = ChargedTokens()

    @property
    def model(self) -> str:
        """The model's name, as configured."""
        return self._model

    @property
    def tokens_used(self) -> int:
        """Tokens that answers were charged for since this analyser was made."""
        return self._charged.used

    def prepare(self, data: bytes, context: ImageContext) -> QwenRequest:
        """Decodes an image, shrinks it to the largest side that is sent, and packs it as JPEG.

        Raises:
            ImageRejected: the bytes can't be decoded.
        """
        image = self._decode(data)
        width, height = image.size
        long, short = max(width, height), min(width, height)
        if short < 1:
            raise ImageRejected("the image has no pixels")
        scale = min(1.0, max(self._max_image_side / long, MIN_SIDE / short))
        if scale < 1:
            size = (max(1, round(width * scale)), max(1, round(height * scale)))
            image = image.resize(size, Image.Resampling.LANCZOS)
        buffer = io.BytesIO()
        image.convert("RGB").save(buffer, "JPEG", quality=JPEG_QUALITY)
        url = "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()
        words = sum(len(json.dumps(message)) for message in messages("", context)) // 4
        patches = math.ceil(image.width / PATCH) * math.ceil(image.height / PATCH)
        return QwenRequest(url, context, patches + words + ANSWER_TOKENS)

    def analyze(self, batch: Sequence[QwenRequest]) -> Sequence[VisionAnalysis | Exception]:
        """Analyses of prepared images, or each one's error, in their order.

        Once the provider has said "too many" (or that nothing can succeed), images of the batch that were not
        sent yet are not sent: they get the same error.

        Raises:
            FatalError: the key, the account, the model or the address is wrong.
        """
        call = _Call()
        outcomes = list(self._workers().map(lambda request: self._outcome(request, call), batch))
        if isinstance(call.stop, FatalError):
            raise call.stop
        return outcomes

    def close(self) -> None:
        """Ends worker threads and connections; the analyser can be used again."""
        with self._lock:
            pool, self._pool = self._pool, None
            client, self._client = self._client, None
        if pool:
            pool.shutdown(wait=True)
        if client:
            client.close()

    def _workers(self) -> ThreadPoolExecutor:
        with self._lock:
            if self._pool is None:
                self._pool = ThreadPoolExecutor(self._concurrency, thread_name_prefix="qwen")
            return self._pool

    def _openai(self) -> OpenAI:
        with self._lock:
            if self._client is None:
                from openai import OpenAI

                # the client wants some key; a server of one's own looks at none
                self._client = OpenAI(
                    base_url=self._base_url,
                    api_key=self._key.get_secret_value() or "none",
                    max_retries=0,
                    timeout=self._timeout_s,
                )
            return self._client

    def _outcome(self, request: QwenRequest, call: _Call) -> VisionAnalysis | Exception:
        if call.stop:
            return call.stop
        try:
            if self._takes_format:
                try:
                    return self._analysis(request, formatted=True)
                except FormatNotTaken as error:
                    self._note_format_not_taken(error)
            return self._analysis(request, formatted=False)
        except (ThrottledError, FatalError) as error:
            if not isinstance(call.stop, FatalError):
                call.stop = error
            return error
        except Exception as error:  # noqa: BLE001 (the image's own; the batch core judges it)
            return error

    def _note_format_not_taken(self, error: FormatNotTaken) -> None:
        with self._lock:
            first, self._takes_format = self._takes_format, False
        if first:
            logger.warning(
                "qwen: the endpoint takes no JSON schema as response format; from now on the schema is only in "
                "the instructions. It said: %s",
                error,
            )

    def _analysis(self, request: QwenRequest, *, formatted: bool) -> VisionAnalysis:
        reservation = self._budget.acquire(requests=1, tokens=self._charged.estimate(request.tokens))
        try:
            answer = self._answer(request, formatted=formatted)
        except ThrottledError as error:
            reservation.settle(0)
            if error.retry_after:
                self._budget.pause(error.retry_after)
            raise
        if (charged := total_tokens(answer)) is not None:
            reservation.settle(charged)
            self._charged.record(charged, request.tokens)
        return parse_analysis(content_of(answer, key=self._key, formatted=formatted))

    def _answer(self, request: QwenRequest, *, formatted: bool) -> dict[str, Any]:
        """The endpoint's answer as JSON, whatever it says."""
        import openai

        refusal: EmbeddingAssetsError
        try:
            raw = self._openai().chat.completions.with_raw_response.create(
                model=self._model,
                messages=cast(Any, messages(request.image_url, request.context)),
                temperature=0,
                max_tokens=MAX_ANSWER_TOKENS,
                **({"response_format": cast(Any, response_format())} if formatted else {}),
            )
            answer = json.loads(raw.http_response.content)
        except openai.APIStatusError as error:
            # the client keeps what is under "error" as body, or the raw text where it is no JSON
            refusal = refusal_of_status(
                error.status_code, error.body, error.response.headers, key=self._key, formatted=formatted
            )
        except openai.APITimeoutError:
            refusal = TransientError(f"qwen: no answer within {self._timeout_s:g} s")
        except openai.APIConnectionError as error:
            cause = error.__cause__ or error
            refusal = TransientError(
                f"qwen: the connection failed: {type(cause).__name__}: {safe_text(cause, self._key)}"
            )
        except (openai.OpenAIError, ValueError) as error:
            refusal = TransientError(f"qwen: the answer can't be read ({type(error).__name__})")
        else:
            if isinstance(answer, dict):
                return answer
            refusal = TransientError("qwen: the answer is no JSON object")
        raise refusal  # not `from error`: the client's frames hold the key


@dataclass
class _Call:
    """What the workers of one `analyze` tell each other."""

    stop: ThrottledError | FatalError | None = None
