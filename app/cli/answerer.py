"""Who answers `chat` and `run`: a running server, or the engine in this process."""

import json
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Annotated, Any, Protocol

import httpx
import msgspec

from app.cli.checks import check_model
from app.cli.client import answers, default_url, json_of, refusal, unreachable
from app.cli.models import full_name, model_names
from app.cli.outcome import CommandFailed
from app.settings import Settings


class Turn(msgspec.Struct, frozen=True):
    """One turn of a conversation."""

    role: str
    content: str


class Sampling(msgspec.Struct, frozen=True, kw_only=True):
    """How an answer is written."""

    temperature: Annotated[float, msgspec.Meta(ge=0, le=2)] = 0.7
    top_p: Annotated[float, msgspec.Meta(ge=0, le=1)] = 1.0
    max_tokens: Annotated[int, msgspec.Meta(ge=1)] | None = None
    """None: as many as the context has room for."""
    seed: int | None = None


class Ended(msgspec.Struct, frozen=True):
    """The end of an answer: what it took."""

    prompt_tokens: int
    tokens: int
    reason: str
    first_s: float
    """Seconds to its first piece."""
    seconds: float

    @property
    def tokens_per_s(self) -> float:
        """Tokens per second after the first."""
        return (self.tokens - 1) / max(self.seconds - self.first_s, 1e-9) if self.tokens > 1 else 0


class Answerer(Protocol):
    """Writes answers with one model."""

    @property
    def model(self) -> str:
        """The model that writes."""

    @property
    def where(self) -> str:
        """Where it runs, in words."""

    def answer(self, turns: Sequence[Turn], sampling: Sampling) -> AsyncIterator[str | Ended]:
        """Write an answer, piece by piece; the last event is its end.

        Closing the iterator stops it.
        """

    async def names(self) -> list[str]:
        """Models that there are."""

    async def use(self, model: str) -> None:
        """Go on with another model.

        Raises:
            CommandFailed, Error: it can't be had; the one before stays.
        """


@asynccontextmanager
async def answering(
    settings: Settings, model: str | None, url: str | None, key: str | None, *, local: bool
) -> AsyncIterator[Answerer]:
    """Find who answers: the server that is named, else one that runs here, else this process.

    Args:
        settings: where a server would be, and how a model is opened in this process.
        model: None: the server's current one, or that of the settings.
        url: of a server; None: look whether one runs.
        key: for a server that asks for one.
        local: don't look for a server.

    Raises:
        CommandFailed, Error: nobody can answer.
    """
    if not local and (url is not None or answers(default_url(settings))):
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        timeout = httpx.Timeout(5.0, read=None)
        async with httpx.AsyncClient(
            base_url=(url or default_url(settings)).rstrip("/"), headers=headers, timeout=timeout
        ) as client:
            server = RemoteAnswerer(client)
            await server.use(model or await server.current())
            yield server
        return
    from app.cli.in_process import InProcess  # noqa: PLC0415 # ONNX Runtime, a second

    wanted = full_name(model or settings.model, model_names(settings.models_dir))
    check, manifest = check_model(msgspec.structs.replace(settings, model=wanted))
    if manifest is None:
        raise CommandFailed(f"{check.text[0].upper()}{check.text[1:]}.")
    engine = InProcess(settings)
    try:
        await engine.use(wanted)
        yield engine
    finally:
        await engine.close()


class RemoteAnswerer:
    """A running server, asked as OpenAI's clients do."""

    def __init__(self, client: httpx.AsyncClient) -> None:
        self._client = client
        self._model = ""

    @property
    def model(self) -> str:
        """The model that writes."""
        return self._model

    @property
    def where(self) -> str:
        """Where it runs, in words."""
        return f"on {str(self._client.base_url).rstrip('/')}"

    async def current(self) -> str:
        """The server's model for requests that name none, or else the first that it has."""
        answer = await self._get("/models/current")
        if answer.is_success:
            return str(json_of(answer)["model_id"])
        names = await self.names()
        if not names:
            raise CommandFailed("the server has no model: `llmhost pull` makes one")
        return names[0]

    async def names(self) -> list[str]:
        """Models that there are."""
        answer = await self._get("/v1/models")
        if answer.is_error:
            raise refusal(answer)
        return [str(model["id"]) for model in json_of(answer)["data"]]

    async def use(self, model: str) -> None:
        """Go on with another model; the server loads it with the next answer."""
        names = await self.names()
        wanted = full_name(model, names)
        if wanted not in names:
            raise CommandFailed(f"the server has no model {model!r}, it has {', '.join(names)}")
        self._model = wanted

    async def answer(self, turns: Sequence[Turn], sampling: Sampling) -> AsyncIterator[str | Ended]:
        """Write an answer; see `Answerer`."""
        body: dict[str, Any] = {
            "model": self._model,
            "messages": msgspec.to_builtins(turns),
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        if sampling.max_tokens is not None:
            body["max_completion_tokens"] = sampling.max_tokens
        if sampling.seed is not None:
            body["seed"] = sampling.seed
        clock = Clock()
        usage, reason = {"prompt_tokens": 0, "completion_tokens": 0}, "error"
        try:
            async with self._client.stream("POST", "/v1/chat/completions", json=body) as answer:
                if answer.is_error:
                    await answer.aread()
                    raise refusal(answer)
                async for data in _events(answer):
                    chunk = json.loads(data)
                    if "error" in chunk:
                        raise CommandFailed(str(chunk["error"].get("message", chunk["error"])))
                    usage = chunk.get("usage") or usage
                    for choice in chunk["choices"]:
                        reason = choice["finish_reason"] or reason
                        if text := choice["delta"].get("content"):
                            clock.piece()
                            yield text
        except httpx.TransportError as error:
            raise unreachable(self._client, error) from error
        yield clock.ended(usage["prompt_tokens"], usage["completion_tokens"], reason)

    async def _get(self, path: str) -> httpx.Response:
        try:
            return await self._client.get(path)
        except httpx.TransportError as error:
            raise unreachable(self._client, error) from error


async def _events(answer: httpx.Response) -> AsyncIterator[bytes]:
    """Read the data of a stream's events, up to `[DONE]`.

    httpx's own lines end at what may stand within a JSON string too, such as U+2028.
    """
    rest = b""
    async for received in answer.aiter_bytes():
        *lines, rest = (rest + received).split(b"\n")
        for line in lines:
            if line.startswith(b"data:") and (data := line[5:].strip()) != b"[DONE]":
                yield data


class Clock:
    """Times one answer."""

    def __init__(self) -> None:
        self._start_s = time.monotonic()
        self._first_s: float | None = None

    def piece(self) -> None:
        """A piece is there; the first one counts."""
        if self._first_s is None:
            self._first_s = time.monotonic() - self._start_s

    def ended(self, prompt_tokens: int, tokens: int, reason: str) -> Ended:
        """It is over."""
        seconds = time.monotonic() - self._start_s
        first_s = seconds if self._first_s is None else self._first_s
        return Ended(prompt_tokens, tokens, reason, first_s, seconds)
