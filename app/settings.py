"""What an operator chose, as typed values.

Every setting is a flag, an environment variable `LLMHOST_<FIELD>` or a line of a file, in this
order of precedence (`setting_sources.py`). A wrong value or an unknown name is refused at start,
wherever it stands, so that a typing error never becomes a silent default.
"""

import os
import types
import typing
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Literal, NamedTuple

import msgspec
from msgspec import Meta

from app.setting_sources import PREFIX, BadSource, Given, given_settings

Count = Annotated[int, Meta(ge=0)]
Positive = Annotated[int, Meta(ge=1)]
Seconds = Annotated[float, Meta(ge=0)]


class InvalidSetting(ValueError):
    """One or more settings can't be used; the message lists them all."""


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """What an operator can choose.

    The manual's page of settings is made of this class: of each field, its default and its text,
    and of the comments that head a group (docs/generate/settings.py).
    """

    # Address
    host: str = "127.0.0.1"
    """Address on which `llmhost serve` listens; `granian app:app` has a flag of its own."""
    port: Annotated[int, Meta(ge=1, le=65_535)] = 8000
    """Port on which `llmhost serve` listens, and where the other commands look for a server."""

    # Models and memory
    models_dir: Path = Path("models")
    """Folder of exported models, one sub-folder each."""
    model: str = "HuggingFaceTB/SmolLM2-135M-Instruct"
    """Model loaded at start; empty: none."""
    max_loaded_models: Positive = 1
    """Models in memory at once; loading another unloads the least recently used. While it loads,
    memory holds one more."""
    max_loaded_encoders: Positive = 2
    """Models for embeddings and reranking in memory at once, beside those that generate text."""
    idle_unload_s: Seconds = 0.0
    """Seconds without a request after which a model is unloaded; 0: never."""
    execution_provider: Literal["auto", "cpu", "cuda"] = "auto"
    """Where the decoder runs; `auto` takes CUDA if the installed ONNX Runtime has it."""
    intra_op_threads: Count = 0
    """Threads of one decoder step; 0: one per physical core."""
    encoder_threads: Count = 0
    """Threads of one run of a model for embeddings or reranking; 0: one per physical core. On Linux
    they step back for everything else that the server does."""
    encoder_run_tokens: Positive = 2048
    """Tokens of such a run, padding included: more texts wait for the next one. A longer text runs
    alone. What a run takes of memory and time grows with it."""
    slots: Count = 0
    """Requests that generate at once, each in a slot of the KV cache; 0: 16, or what fits half of
    the memory that the model and its prefix cache leave free."""
    context_length: Count = 0
    """Tokens of prompt and answer together; 0: what the model was trained for, at most 8,192."""
    prefix_cache_mb: Count = 512
    """Megabytes of each model's prefix cache, which keeps the beginnings of prompts for later ones;
    0: off. On the CPU only."""
    draft_tokens: Count = 0
    """Speculative decoding: most draft tokens to verify in one step for a sequence that decodes
    alone, proposed from its own text; 0: off. A step of several tokens rounds differently from a
    step of one, so with drafts an answer may depend on whether others are served beside it."""
    strict_parameters: bool = False
    """Whether OpenAI's, Anthropic's and Ollama's endpoints refuse fields that ask for what can't be
    served but change no answer's meaning; off: an answer names them in its header
    `x-llmhost-ignored`."""
    special_tokens_in_content: bool = False
    """Whether special tokens that a client types into a conversation (`<|im_end|>`) are the model's
    own, as with most servers. Off: they are text there, so that no user's turn can end itself and
    open one of the system. Prompts without a chat template are taken as they are in any case."""

    # Requests
    max_waiting: Count = 64
    """Requests that may wait for a slot; one more is answered 429."""
    default_max_tokens: Positive = 1024
    """Tokens to generate at most where a request can't say so (LLM Host, Neptun)."""
    max_body_bytes: Positive = 10_000_000
    """Bytes of a request's body; a full context of 8,192 tokens is about 40,000."""
    max_body_values: Positive = 200_000
    """Values in a request's JSON, an array or object counting as eight: decoding more of them would
    keep others waiting."""
    body_idle_timeout_s: Seconds = 10.0
    """Seconds for which a request's body may pause before it is refused with 408; 0: no limit."""
    body_timeout_s: Seconds = 120.0
    """Seconds that the server may spend waiting for a request's body in total; 0: no limit. The
    largest body comes in time from 0.7 Mbit/s on."""
    rate_limit_per_minute: Count | None = None
    """Generations per minute of one user, or of one address for those who have not signed in; 0: no
    limit. Empty: 60 at `/generate` and LocalLab's other endpoints, whose document says so, and no
    limit at those of other APIs; a number here or for the burst is for all of them."""
    rate_limit_burst: Count | None = None
    """Requests to generate per second, of one user or address in the same way; 0: no limit. Empty:
    10, for the same APIs as the limit per minute."""
    trusted_proxies: str = ""
    """Addresses or networks, separated by commas, whose `X-Forwarded-For` is trusted; from anybody
    else it could be invented to escape the limits."""

    # Connections
    allowed_hosts: str = ""
    """Names, separated by commas and without a port, by which clients may call an open server,
    besides addresses and `localhost`; `*`: any name. Otherwise a page could reach it by a name of
    its own (DNS rebinding)."""
    cors_origins: str = ""
    """Origins, separated by commas (`https://chat.example.org`), whose pages may call the server
    from a browser; `*`: any; empty: none but its own. On an open server such a page may do what its
    visitor could, except to load, unload, fetch or delete models."""
    max_connections_per_address: Count = 256
    """Connections that one address may have at once; the newest beyond that are closed. Trusted
    proxies are not limited; 0: no limit. Granian takes 1,024 in all (`--backpressure`)."""
    idle_connection_s: Seconds = 60.0
    """Seconds after which a connection that carries no request and no data is closed; 0: never.
    Granian closes those that have had a request after its own `--http1-header-read-timeout`, 30
    seconds."""
    send_timeout_s: Seconds = 60.0
    """Seconds after which the connection of a client that reads nothing of its answer is closed;
    0: never."""
    operations_address: str = ""
    """`host:port` of a second listener that answers `/health/live`, `/health/ready` and `/metrics`
    alone, whatever the first one is busy with; empty: none."""

    # Process and data
    data_dir: Path = Path("data")
    """Folder for what the server itself writes: the database and the signing secret."""
    database_url: str = ""
    """Where users and what is kept for them lie: a SQLAlchemy URL (`postgresql://…` with the extra
    `postgres`); empty: a SQLite file in the data directory."""
    database_connections: Annotated[int, Meta(ge=3)] = 15
    """Connections to the database that one process has at most. All replicas together need fewer
    than PostgreSQL's `max_connections`, which is 100 unless it was changed."""
    database_wait_s: Annotated[float, Meta(gt=0)] = 10.0
    """Seconds that a request waits for one of these, or for the database to take a new one, before
    it is answered 503."""
    store_url: str = ""
    """Valkey or Redis in which replicas count their limits together (`valkey://host:6379/0`, with
    the extra `store`); empty: each process counts in its memory."""
    store_away: Literal["local", "open", "closed"] = "local"
    """What holds while that does not answer. `local`: each replica counts for itself; `open`: no
    limits; `closed`: what has a limit is answered 503."""
    drain_timeout_s: Seconds = 30.0
    """Seconds that running requests may continue after SIGTERM."""
    stalled_after_s: Annotated[float, Meta(gt=0)] = 30.0
    """Seconds that one engine step may take before `/health/ready` answers 503. A step feeds at
    most 130 prompt tokens: a machine that needs longer for them serves nobody."""

    # Logs
    log_format: Literal["text", "json"] = "text"
    """`text`: a line each, with time, level, event and `key=value`; `json`: an object each."""
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    """The least important lines that are written."""
    access_log: bool = True
    """Whether each request gets a line with its method, path, status, duration and tokens; probes
    and `/metrics` only when they fail. No query, header or text of a request is in it."""
    log_prompts: bool = False
    """Whether the text of every prompt is written to the log, as the model gets it."""

    # Accounts
    require_auth: bool = False
    """Whether LocalLab's and OpenAI's endpoints require a token too; LLM Host's and Neptun's always
    do."""
    registration: Literal["open", "closed"] = "open"
    """Whether anybody may register; `closed`: only `llmhost users create` adds users."""
    jwt_secret: str = ""
    """What access tokens are signed with, at least 32 bytes; several, separated by commas: the
    first signs, all verify, so that a key can be replaced without signing everybody out. Empty:
    made once, in a file of the data directory that only its owner can read. Processes that share
    users share this."""
    jwt_secrets_file: str = ""
    """A file with these secrets, a line each, instead of the one in the data directory: one that
    replicas share, a mounted secret perhaps. It is read again while the server runs; a new first
    line signs after two minutes."""
    access_token_minutes: Positive = 30
    """Minutes for which an access token is valid; short, because every stolen one works that
    long."""
    refresh_token_days: Positive = 7
    """Days until a user has to sign in again."""
    rotate_refresh_tokens: bool = False
    """Whether each refresh replaces the refresh token; using a replaced one then ends its login.
    Off: LLM Host's documented client keeps its first for ever."""
    argon2_memory_kib: Annotated[int, Meta(ge=8)] = 65536
    """KiB of memory that hashing a password takes; with time cost 3, RFC 9106's second
    recommendation."""
    argon2_time_cost: Positive = 3
    """Passes over that memory."""
    login_attempts_per_account: Count = 10
    """Wrong passwords per minute for one account from one address; 0: no limit."""
    login_attempts_per_address: Count = 60
    """Attempts to sign in per minute from one address, for any account; 0: no limit."""
    login_attempts_from_new_addresses: Count = 100
    """Attempts to sign in to one account per hour from all addresses together from which it has not
    signed in before; 0: no limit. 100 is what OWASP's ASVS (2.2.1) allows."""
    registrations_per_address: Count = 60
    """Registrations per hour from one address; 0: no limit."""
    chats_per_user: Count = 1000
    """Chats (Neptun) that one user may keep; 0: no limit."""
    chat_mb_per_user: Count = 100
    """Megabytes that one user's chats may hold; a reply that has begun is kept in any case; 0: no
    limit."""
    responses_per_user: Count = 10_000
    """Responses (OpenAI) that are kept for one user; 0: no limit. Beyond it, only requests are
    refused that ask to be kept, or that go on from a response."""
    response_mb_per_user: Count = 100
    """Megabytes that these may hold; one that has begun is kept in any case; 0: no limit."""
    response_days: Count = 30
    """Days for which they are kept, after the last response of their conversation; 0: none are
    kept."""
    file_mb: Count = 100
    """Megabytes of one file (OpenAI's, for batches); 0: no limit."""
    file_mb_per_user: Count = 500
    """Megabytes that one user's files may have; results of batches count, and are kept in any case,
    but no line is asked whose answer would come on top; 0: no limit."""
    file_days: Count = 30
    """Days for which files and ended batches are kept; 0: until they are deleted."""
    batch_max_lines: Positive = 50_000
    """Requests in one batch; with empty ones, its file may have twice as many lines."""
    batch_lines_at_once: Count = 2
    """Requests of batches that run at once, of all users together, where nobody else waits; 0: the
    server takes no batches."""


class Effective(NamedTuple):
    """Settings, and where each of them comes from."""

    settings: Settings
    origins: dict[str, Given]
    """By name; what has its default is not in it."""


def load_settings(
    environ: Mapping[str, str] = os.environ,
    flags: Iterable[Given] = (),
) -> Settings:
    """Read the settings from flags, the environment and the file.

    Raises:
        InvalidSetting: names every one that is unknown or has a wrong value, and its place.
    """
    return effective_settings(environ, flags).settings


def effective_settings(
    environ: Mapping[str, str] = os.environ,
    flags: Iterable[Given] = (),
) -> Effective:
    """Read the settings, and say where each of them comes from.

    Raises:
        InvalidSetting: names every one that is unknown or has a wrong value, and its place. A wrong
            value is refused even where another one counts.
    """
    hints = typing.get_type_hints(Settings, include_extras=True)
    values: dict[str, object] = {}
    origins: dict[str, Given] = {}
    problems: list[str] = []
    try:
        all_given = given_settings(flags, environ)
    except BadSource as error:
        raise InvalidSetting(str(error)) from error
    for given in all_given:
        if given.name not in Settings.__struct_fields__:
            variables = given.kind == "environment"
            names = [variable_of(n) if variables else n for n in Settings.__struct_fields__]
            problems.append(f"{given.place}: no such setting; there are {', '.join(names)}")
            continue
        hint = hints[given.name]
        try:
            values[given.name] = _converted(given, hint)
        except msgspec.ValidationError:
            problems.append(f"{given.shown}: expected {expected(hint)}")
        origins[given.name] = given
    if problems:
        raise InvalidSetting("\n".join(problems))
    return Effective(Settings(**values), origins)  # type: ignore[arg-type] # each was converted


def variable_of(name: str) -> str:
    """The environment variable of a setting."""
    return PREFIX + name.upper()


def _converted(given: Given, hint: object) -> object:
    """Make a setting's type of a value.

    An environment variable is always a string, and may stand for any type. A file has types of its
    own: only what a string alone can say, a path, is read from one there.
    """
    if given.value == "" and type(None) in typing.get_args(hint):
        return None
    return msgspec.convert(given.value, hint, strict=given.kind == "file", dec_hook=_path)


def expected(hint: object) -> str:
    """A field's type and limits in words: `int >= 0`, `auto, cpu or cuda`."""
    if typing.get_origin(hint) is Annotated:
        base, *metas = typing.get_args(hint)
        limits = [
            f"{sign} {value:g}"
            for meta in metas
            for sign, value in ((">=", meta.ge), ("<=", meta.le), (">", meta.gt))
            if value is not None
        ]
        return " ".join([expected(base), " and ".join(limits)])
    if typing.get_origin(hint) is Literal:
        *first, last = typing.get_args(hint)
        return f"{', '.join(first)} or {last}"
    if hint is type(None):
        return "empty"
    if typing.get_origin(hint) in (types.UnionType, typing.Union):
        return " or ".join(expected(option) for option in typing.get_args(hint))
    return getattr(hint, "__name__", str(hint))


def _path(kind: type, value: object) -> object:
    if kind is Path:
        return Path(str(value))
    raise NotImplementedError(kind)
