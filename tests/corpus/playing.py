"""Play the corpus against a server and write down what it answers."""

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from tests.corpus.asked import GROUPS, Group
from tests.corpus.normal import Answer, Normaliser
from tests.corpus.request import Request
from tests.corpus.scripted import write_models
from tests.e2e.scripted_app import FIRST
from tests.e2e.server import running_server

ONE_REQUEST = httpx.Limits(max_keepalive_connections=0)
"""Of a connection: after some refusals the server closes it."""
RECORDS = Path(__file__).with_name("records")
SETTINGS: Mapping[str, Any] = {
    "slots": 4,
    "max_waiting": 8,
    "max_loaded_models": 16,
    "prefix_cache_mb": 8,
    "intra_op_threads": 1,
    "execution_provider": "cpu",
    # so little that a body beyond it has arrived before the connection is closed over it
    "max_body_bytes": 6_000,
    "argon2_memory_kib": 8,
    "argon2_time_cost": 1,
    "login_attempts_per_address": 0,
}
SERVERS: Mapping[str, Mapping[str, Any]] = {
    "open": {"model": FIRST, "rate_limit_per_minute": 100_000},
    "closed": {
        "model": "",
        "require_auth": True,
        "registration": "closed",
        "rate_limit_per_minute": 8,
        "login_attempts_per_account": 3,
    },
}
"""One after the other over the same folder, so that the second knows the first one's users."""


@dataclass
class Player:
    """Sends requests in their order, and keeps what later ones need."""

    client: httpx.Client
    saved: dict[str, str] = field(default_factory=dict)

    def send(self, request: Request) -> Answer:
        """Send one and read its answer to the end, or to where it breaks off."""
        filled = request.filled(self.saved)
        body, broke_off = b"", False
        with self.client.stream(
            filled.method, filled.path, headers=filled.headers, content=filled.content or None
        ) as response:
            try:
                for chunk in response.iter_raw():
                    body += chunk
            except httpx.RemoteProtocolError:
                broke_off = True
        for name, place in request.save.items():
            self.saved[name] = str(_at(json.loads(body), place))
        return Answer(response.status_code, dict(response.headers), body, broke_off)

    def records(self, requests: Iterable[Request], normaliser: Normaliser) -> Iterator[str]:
        """Play requests; yield a record of each."""
        for request in requests:
            try:
                answer = self.send(request)
            except httpx.TransportError as error:
                error.add_note(f"asked {request.name!r}: {request.method} {request.path}")
                raise
            record = normaliser.record(answer, request.show)
            yield f"=== {request.name}\n{request.method} {request.path}\n{record}\n"


def play(folder: Path) -> dict[str, str]:
    """Play everything against servers of this checkout, which leave their data in `folder`.

    Returns:
        The records of each group by its name.
    """
    models_dir = folder / "models"
    write_models(models_dir)
    normaliser = Normaliser({str(models_dir): "<models>"})
    saved: dict[str, str] = {}
    played: dict[str, str] = {}
    for kind, special in SERVERS.items():
        settings = {**SETTINGS, **special, "models_dir": models_dir}
        target = "tests.corpus.scripted:app"
        with (
            running_server(folder, target=target, **settings) as server,
            httpx.Client(base_url=server.url, timeout=60, limits=ONE_REQUEST) as client,
        ):
            player = Player(client, saved)
            for group in _of(kind):
                played[group.name] = "\n".join(player.records(group.requests, normaliser))
    return played


def record_path(name: str) -> Path:
    """Where a group's records lie."""
    return RECORDS / f"{name}.txt"


def _of(server: str) -> list[Group]:
    return [group for group in GROUPS if group.server == server]


def _at(value: Any, place: str) -> Any:
    for step in place.split("."):
        value = value[int(step) if isinstance(value, list) else step]
    return value
