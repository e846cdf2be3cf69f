"""The environment as typed values.

Every setting is an environment variable `LLMHOST_<FIELD>`. A wrong value or an unknown
`LLMHOST_` name is refused at start, so that a typing error never becomes a silent default.
"""

import os
import types
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Final, Literal

import msgspec
from msgspec import Meta

PREFIX: Final = "LLMHOST_"

Count = Annotated[int, Meta(ge=0)]
Positive = Annotated[int, Meta(ge=1)]
Seconds = Annotated[float, Meta(ge=0)]


class InvalidSetting(ValueError):
    """One or more environment variables can't be used; the message lists them all."""


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """What an operator can choose."""

    models_dir: Path = Path("models")
    """Folder of exported models, one sub-folder each."""
    model: str = "HuggingFaceTB/SmolLM2-135M-Instruct"
    """Model loaded at start; empty: none."""
    data_dir: Path = Path("data")
    """Folder for what the server itself writes."""
    max_loaded_models: Positive = 1
    """Models in memory at once; another one makes the least recently used one leave. While it
    loads, memory holds one more."""
    idle_unload_s: Seconds = 0.0
    """Seconds without a request after which a model leaves memory; 0: never."""
    execution_provider: Literal["auto", "cpu", "cuda"] = "auto"
    """Where the decoder runs; auto takes CUDA where the installed ONNX Runtime has it."""
    intra_op_threads: Count = 0
    """Threads of one decoder step; 0: one per physical core."""
    slots: Count = 0
    """Requests that generate at once, each in a slot of the KV cache; 0: 16, or what fits half of
    the memory that is free at start."""
    context_length: Count = 0
    """Tokens of prompt and answer together; 0: what the model was trained for."""
    prefix_cache_mb: Count = 512
    """Megabytes of each model's prefix cache, which keeps the beginnings of prompts; 0 is off."""
    draft_tokens: Count = 0
    """Speculative decoding: most draft tokens to verify in one step for a sequence that decodes
    alone, proposed from its own text; 0 is off. A step of several tokens rounds differently from
    a step of one, so with drafts an answer may depend on whether others are served beside it."""
    max_waiting: Count = 64
    """Requests that may wait for a slot; one more is answered 429."""
    drain_timeout_s: Seconds = 30.0
    """Seconds that running requests may go on after SIGTERM."""
    stalled_after_s: Annotated[float, Meta(gt=0)] = 30.0
    """Seconds that one engine step may take before `/health/ready` says 503. A step feeds at most
    130 prompt tokens: a machine that needs longer for them serves nobody."""

    special_tokens_in_content: bool = False
    """Whether special tokens that a client types into a conversation are the model's own, as with
    most servers. Off: they are text there, so that no user's turn can end itself and open one of
    the system. Prompts without a chat template are taken as they are in any case."""

    database_url: str = ""
    """Users and chats: a SQLAlchemy URL (`postgresql://…` with the extra `postgres`); empty: a
    SQLite file in the data directory."""
    require_auth: bool = False
    """Whether LocalLab's and OpenAI's endpoints need a token too; LLM Host's and Neptun's always
    do."""
    registration: Literal["open", "closed"] = "open"
    """Whether anybody may register; closed: only `python -m app users create`."""
    jwt_secret: str = ""
    """What access tokens are signed with, at least 32 bytes; several, separated by commas:
    the first signs, all verify, so that a key can be replaced without signing everybody out.
    Empty: made once, in the data directory. Processes that share users share this."""
    access_token_minutes: Positive = 30
    """Minutes that an access token holds; short, because every stolen one works that long."""
    refresh_token_days: Positive = 7
    """Days until somebody has to sign in again."""
    rotate_refresh_tokens: bool = False
    """Whether each refresh gives a new refresh token and takes the old one away; one that comes
    back then ends its whole login. Off: LLM Host's documented client keeps its first for ever."""
    argon2_memory_kib: Annotated[int, Meta(ge=8)] = 65536
    """KiB that hashing a password takes; with time cost 3, RFC 9106's second recommendation."""
    argon2_time_cost: Positive = 3
    """Passes over that memory."""
    login_attempts_per_account: Count = 10
    """Wrong passwords per minute for one account from one address; 0: no limit."""
    login_attempts_per_address: Count = 60
    """Attempts to sign in per minute from one address, for any account; 0: no limit."""
    login_attempts_from_new_addresses: Count = 100
    """Attempts to sign in to one account per hour from all addresses together from which it has
    not signed in before; 0: no limit. 100 is what OWASP's ASVS (2.2.1) allows."""
    registrations_per_address: Count = 60
    """Registrations per hour from one address; 0: no limit."""
    chats_per_user: Count = 1000
    """Chats that one user may keep; 0: no limit."""
    chat_mb_per_user: Count = 100
    """Megabytes that one user's chats may hold; a reply that has begun is kept in any case; 0: no
    limit."""
    rate_limit_per_minute: Count = 60
    """Generations that one user, or else one address, may start in any minute; 0: no limit."""
    rate_limit_burst: Count = 10
    """Requests to generate from one user, or else one address, in any second; 0: no limit."""
    trusted_proxies: str = ""
    """Addresses or networks, separated by commas, whose `X-Forwarded-For` is believed; from
    anybody else it could be invented to escape the limits."""
    max_body_bytes: Positive = 10_000_000
    """Bytes of a request's body; a full context of 8,192 tokens is about 40,000."""
    max_body_values: Positive = 200_000
    """Values in a request's JSON, an array or object counting as eight: decoding more of them would
    keep others waiting."""
    body_idle_timeout_s: Seconds = 10.0
    """Seconds for which a request's body may pause; 0: for ever."""
    body_timeout_s: Seconds = 120.0
    """Seconds that may be spent waiting for a request's body in all; 0: no limit. The largest
    body comes in time from 0.7 Mbit/s on."""
    send_timeout_s: Seconds = 60.0
    """Seconds for which a client may take nothing of an answer before its connection is closed;
    0: for ever."""
    idle_connection_s: Seconds = 60.0
    """Seconds for which a connection without a request may carry no data; 0: for ever. Granian
    closes those that have had one after its own `--http1-header-read-timeout`, 30 seconds."""
    max_connections_per_address: Count = 256
    """Connections that one address may have at once, trusted proxies excepted; the newest beyond
    it are closed. 0: no limit. Granian takes 1,024 in all (`--backpressure`)."""
    allowed_hosts: str = ""
    """Names, separated by commas, by which clients may call an open server, beside addresses and
    `localhost`; `*`: any. Otherwise a page could reach it by a name of its own (DNS rebinding)."""
    operations_address: str = ""
    """`host:port` of a second listener that answers `/health/live`, `/health/ready` and `/metrics`
    alone, whatever the first one is busy with; empty: none."""
    default_max_tokens: Positive = 1024
    """Tokens to generate at most where a request can't say so (LLM Host, Neptun)."""


def load_settings(environ: Mapping[str, str] = os.environ) -> Settings:
    """Read the settings out of `LLMHOST_*` variables.

    Raises:
        InvalidSetting: names every variable that is unknown or has a wrong value.
    """
    hints = typing.get_type_hints(Settings, include_extras=True)
    names = {PREFIX + field.upper(): field for field in Settings.__struct_fields__}
    values: dict[str, object] = {}
    problems: list[str] = []
    for variable in sorted(name for name in environ if name.startswith(PREFIX)):
        if variable not in names:
            problems.append(f"{variable}: no such setting; there are {', '.join(names)}")
            continue
        field, raw = names[variable], environ[variable]
        try:
            # strict=False: an environment variable is always a string
            values[field] = msgspec.convert(raw, hints[field], strict=False, dec_hook=_path)
        except msgspec.ValidationError:
            problems.append(f"{variable}={raw!r}: expected {expected(hints[field])}")
    if problems:
        raise InvalidSetting("\n".join(problems))
    return Settings(**values)  # type: ignore[arg-type] # each was converted to its field's type


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
    if isinstance(hint, types.UnionType):
        return " or ".join(expected(option) for option in typing.get_args(hint))
    return getattr(hint, "__name__", str(hint))


def _path(kind: type, value: object) -> object:
    if kind is Path:
        return Path(str(value))
    raise NotImplementedError(kind)
