"""Make the numbered requests of a run: the same seed and number always make the same one."""

import random
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import quote, urlencode

from bench.fuzz.http_mutations import (
    Request,
    mutate_bytes,
    mutate_headers,
    mutate_method,
    mutate_path,
    mutate_query,
)
from bench.fuzz.json_mutations import damaged, dumped, mutated
from bench.fuzz.operations import Examples, Operation
from bench.fuzz.seeds import written
from bench.fuzz.values import TEXTS

FORM: Final = "application/x-www-form-urlencoded"
WRITTEN_SHARE: Final = 0.6
"""Of the bodies, how many begin as one that was written by hand."""
NAMELESS_SHARE: Final = 0.3
"""Of the requests, how many carry no token."""
LONGEST_BODY: Final = 200_000
"""Bytes; larger ones are cut off. What they cost is what `bench attack` asks."""
DAMAGED_SHARE: Final = 0.04
"""Of the requests, how many are no HTTP any more: the server waits for the rest of some."""
_MUTATIONS: Final = (0, 1, 2, 3, 5, 8)
_HOW_OFTEN: Final = (8, 40, 25, 15, 8, 4)
_WEIGHTS: Final[Mapping[str, float]] = {
    "POST /generate": 10,
    "POST /chat": 8,
    "POST /generate/batch": 6,
    "POST /v1/chat/completions": 25,
    "POST /v1/completions": 12,
    "POST /v1/responses": 12,
    "POST /api/ai/huggingface/{model_publisher}/{model_name}/chat": 6,
    # what succeeds here disturbs the rest of the run
    "POST /models/unload": 0.02,
    "POST /api/pull": 0.02,
    "DELETE /api/delete": 0.0,
    "POST /me/delete": 0.2,
    "POST /me/password": 0.2,
    "POST /logout": 0.1,
}
_USUAL_WEIGHT: Final = 3.0
_ENDING: Final = ("/me/delete", "/me/password", "/logout")
"""What ends a login is asked with one that is kept for this."""
_LENGTHS: Final = {
    "/generate": "max_length",
    "/chat": "max_length",
    "/generate/batch": "max_length",
    "/v1/chat/completions": "max_tokens",
    "/v1/completions": "max_tokens",
    "/v1/responses": "max_output_tokens",
}
"""Which field says how much is generated, by path."""
_COUNTS: Final = ("max_new_tokens", "max_completion_tokens", "n", "best_of", "min_tokens")
_LONG_SHARE: Final = 0.02
"""Of the requests, how many may generate for long."""


@dataclass(frozen=True)
class Case:
    """One request of a run."""

    number: int
    operation: Operation
    """What it was before it was mutated."""
    request: Request
    reaches: bool
    """Whether it is sure to reach its operation, if it is well-formed."""
    damage_seed: int | None
    """None: its bytes are what the request says."""

    @property
    def well_formed(self) -> bool:
        """Whether the application must answer it."""
        return self.damage_seed is None and self.request.well_formed

    @property
    def to_head(self) -> bool:
        """Whether its answer has no body."""
        return self.request.method == b"HEAD"

    def encoded(self, secrets: Mapping[str, str]) -> bytes:
        """Write it.

        Args:
            secrets: what stands for each `<<name>>` in headers and body.
        """

        def filled(content: bytes) -> bytes:
            for name, secret in secrets.items():
                content = content.replace(b"<<%b>>" % name.encode(), secret.encode())
            return content

        headers = [(name, filled(value)) for name, value in self.request.headers]
        body = filled(self.request.body)
        content = Request(self.request.method, self.request.target, headers, body).encoded()
        if self.damage_seed is None:
            return content
        return mutate_bytes(content, random.Random(self.damage_seed))  # noqa: S311 # requests


class Cases:
    """Makes the requests of one seed."""

    def __init__(self, seed: str, operations: list[Operation], examples: Examples, model: str):
        self.seed, self._operations, self._examples = seed, operations, examples
        self._weights = [_WEIGHTS.get(str(o), _USUAL_WEIGHT) for o in operations]
        self._written = written(model)
        self._others = [body for bodies in self._written.values() for body in bodies]
        self.model = model

    def make(self, number: int) -> Case:
        """Make the request of a number."""
        rng = random.Random(f"{self.seed} {number}")  # noqa: S311 # requests, not secrets
        operation = rng.choices(self._operations, self._weights)[0]
        request = Request(operation.method.encode(), self._target(operation, rng))
        request.headers.append((b"host", b"127.0.0.1"))
        if rng.random() > NAMELESS_SHARE:
            throwaway = operation.path in _ENDING
            token = "ending" if throwaway else rng.choice(["token", "key"])
            request.headers.append((b"authorization", b"Bearer <<%b>>" % token.encode()))
        json_mutations = rng.choices(_MUTATIONS, _HOW_OFTEN)[0]
        if operation.content_type:
            request.headers.append((b"content-type", operation.content_type.encode()))
            request.body = self._body(operation, json_mutations, rng)
        method, path = request.method, request.target.partition(b"?")[0]
        self._mutate_around(request, rng, often=not operation.content_type)
        unchanged = (method, path) == (request.method, request.target.partition(b"?")[0])
        damage_seed = rng.randrange(1 << 60) if rng.random() < DAMAGED_SHARE else None
        return Case(number, operation, request, unchanged and b"%" not in path, damage_seed)

    def _target(self, operation: Operation, rng: random.Random) -> bytes:
        path, query = operation.path, []
        publisher, _, name = self.model.partition("/")
        usual = {"model_publisher": publisher, "model_name": name, "model_id": self.model}
        for parameter in operation.parameters:
            value = usual.get(parameter.name) or str(self._examples.value(parameter.schema, rng))
            if rng.random() < 0.15:
                value = rng.choice(TEXTS)
            escaped = quote(value.encode("utf-8", "surrogatepass"), safe="")
            if parameter.place == "path":
                path = path.replace(f"{{{parameter.name}}}", escaped)
            elif parameter.required or rng.random() < 0.5:
                query.append(f"{parameter.name}={escaped}")
        return "?".join([path, "&".join(query)] if query else [path]).encode()

    def _body(self, operation: Operation, mutations: int, rng: random.Random) -> bytes:
        bodies = self._written.get(operation.path)
        body: Any = self._examples.body(operation, rng)
        if bodies and rng.random() < WRITTEN_SHARE:
            body = rng.choice(bodies)
        for _ in range(mutations):
            body = mutated(body, self._others, rng)
        body = _shortened(body, operation.path, rng)
        if operation.content_type == FORM and isinstance(body, dict):
            pairs = {
                name: str(value).encode("utf-8", "surrogatepass") for name, value in body.items()
            }
            text = urlencode(
                {n.encode("utf-8", "surrogatepass"): v for n, v in pairs.items()}
            ).encode()
            text = text.replace(b"%3C%3C", b"<<").replace(b"%3E%3E", b">>")
        else:
            text = dumped(body, rng)
        if rng.random() < 0.12:
            text = damaged(text, rng)
        return text[:LONGEST_BODY]

    def _mutate_around(self, request: Request, rng: random.Random, *, often: bool) -> None:
        factor = 3.0 if often else 1.0
        for mutate, share in (
            (mutate_headers, 0.12),
            (mutate_headers, 0.06),
            (mutate_query, 0.06),
            (mutate_path, 0.05),
            (mutate_method, 0.04),
        ):
            if rng.random() < share * factor:
                mutate(request, rng)
        if rng.random() < 0.05:
            request.headers.append((b"accept", b"text/event-stream"))


def _shortened(body: Any, path: str, rng: random.Random) -> Any:
    """A body that makes little be generated; most of the time, as long texts show no more."""
    if path not in _LENGTHS or not isinstance(body, dict) or rng.random() < _LONG_SHARE:
        return body
    short = dict(body)
    for name in (*_LENGTHS.values(), *_COUNTS):
        value = body.get(name)
        if isinstance(value, int) and value > 4:
            short[name] = rng.randrange(1, 4)
    limits = {*_LENGTHS.values(), *_COUNTS[:2]} & body.keys()
    if "query" not in body and all(body[name] is None for name in limits):
        short[_LENGTHS[path]] = 2
    return short
