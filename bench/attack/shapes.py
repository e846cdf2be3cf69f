"""The shapes of an attack: what one attacker does until the time is up.

Knows the server from outside alone: its documented paths, and HTTP.
"""

import asyncio
import itertools
import json
import random
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any, Final

from bench.attack.bodies import CHAT, COMPLETIONS, SCHEMAS, large
from bench.attack.target import Target
from bench.load import WORDS
from bench.raw_http import request

JSON: Final = ("content-type", "application/json")
CONTEXT_WORDS: Final = 6_000
"""A prompt of as many words nearly fills a context of 8,192 tokens."""


@dataclass(frozen=True)
class Shape:
    """What attackers do at the same time, each on its own connections."""

    name: str
    attackers: int
    attempts: int
    """Of all attackers together, at most."""
    act: Callable[[Target, int], Coroutine[Any, Any, None]]
    """What the attacker of this number does; ends when `Target.attempts` does."""


async def slow_bodies(target: Target, number: int) -> None:
    """A byte now and then."""
    for _ in target.attempts():
        async with target.connection(number) as connection:
            headers = [JSON, ("content-length", "100000"), *target.identity(number)]
            await connection.send(request("POST", "/generate", headers=headers))
            await connection.trickle(b" ", 0.5)


async def endless_bodies(target: Target, number: int) -> None:
    """Chunk after chunk without a last one: slowly, or as fast as they are taken."""
    size, every_s = (16, 0.1) if number % 4 else (65_536, 0.0)
    chunk = b"%x\r\n%b\r\n" % (size, b"a" * size)
    for _ in target.attempts():
        async with target.connection(number) as connection:
            headers = [JSON, ("transfer-encoding", "chunked"), *target.identity(number)]
            await connection.send(request("POST", "/generate", headers=headers))
            await connection.send(b'c\r\n{"prompt": "\r\n')
            await connection.trickle(chunk, every_s)


async def silent_connections(target: Target, number: int) -> None:
    """Nothing at all, half a head, or a head that never ends."""
    for _ in target.attempts():
        async with target.connection(number) as connection:
            match number % 3:
                case 0:
                    await connection.answer()
                case 1:
                    await connection.send(b"POST /generate HTTP/1.1\r\nhost: 127.0.0.1\r\nx-a: ")
                    await connection.answer()
                case 2:
                    await connection.send(b"GET / HTTP/1.1\r\nhost: 127.0.0.1\r\n")
                    await connection.trickle(b"x-a: b\r\n", 0.5)


async def readers_that_never_read(target: Target, number: int) -> None:
    """Long streams, or many large answers, for which nobody takes a byte."""
    stream = json.dumps({"prompt": f"Count, {number}", "stream": True, "max_length": 4_000})
    for _ in target.attempts():
        async with target.connection(number, receive_buffer=2_048) as connection:
            if number % 2:
                content = request("GET", "/schema/openapi.json") * 50
            else:
                content = request("POST", "/generate", stream.encode(), target.identity(number))
            await connection.send(content)
            await connection.wait()


async def short_requests(target: Target, number: int) -> None:
    """One client that asks for little as often as it can."""
    generate = {"prompt": "Hi", "max_length": 1}
    chat = {"model": target.model, "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 1}
    asked: list[tuple[str, str, Any]] = [
        ("POST", "/generate", generate),
        ("POST", CHAT, chat),
        ("POST", "/tokenize", {"model": target.model, "prompt": "Hello, world"}),
        ("GET", "/health", None),
        ("GET", "/metrics", None),
        ("GET", "/system/info", None),
        ("GET", "/models/available", None),
        ("GET", "/v1/models", None),
        ("GET", "/schema/openapi.json", None),
        ("GET", "/me", None),
        ("GET", "/api/chats?limit=100", None),
        ("GET", "/nothing", None),
    ]
    requests = itertools.cycle(asked)
    while target.left_s and target.attempts_left:
        async with target.connection(number) as connection:
            for _ in target.attempts():
                method, path, body = next(requests)
                content = b"" if body is None else json.dumps(body).encode()
                headers = target.identity(number)
                await connection.send(request(method, path, content, headers))
                await connection.answer()
                if not connection.open:
                    break


async def large_bodies(target: Target, number: int) -> None:
    """Bodies just below the limit, of every kind that could be costly to read."""
    made = large(target.model)
    names = itertools.cycle(made)
    for _ in itertools.islice(names, number * 5):
        pass  # each attacker begins elsewhere
    for _ in target.attempts():
        path, body = made[next(names)]()
        async with target.connection(number) as connection:
            await connection.ask("POST", path, body, headers=target.identity(number))


async def long_prompts(target: Target, number: int) -> None:
    """Prompts that fill the context, no two alike; some ask for every token's logprobs."""
    for attempt in target.attempts():
        words = random.Random(f"{number} {attempt}").choices(WORDS, k=CONTEXT_WORDS)  # noqa: S311 # load, not secrets
        body: dict[str, Any] = {"model": target.model, "prompt": " ".join(words), "max_tokens": 1}
        if number % 2:
            body |= {"echo": True, "logprobs": 5}
        async with target.connection(number) as connection:
            headers = target.identity(number)
            await connection.ask("POST", COMPLETIONS, json.dumps(body).encode(), headers=headers)


async def hostile_schemas(target: Target, number: int) -> None:
    """Schemas that cost much to compile or to follow, each a little different every time."""
    for attempt in target.attempts():
        schema = {**SCHEMAS[attempt % len(SCHEMAS)], "title": f"{number} {attempt}"}
        body = {
            "model": target.model,
            "messages": [{"role": "user", "content": "Hi"}],
            "max_tokens": 64,
            "response_format": {
                "type": "json_schema",
                "json_schema": {"name": "s", "schema": schema},
            },
        }
        async with target.connection(number) as connection:
            headers = target.identity(number)
            await connection.ask("POST", CHAT, json.dumps(body).encode(), headers=headers)


async def many_choices(target: Target, number: int) -> None:
    """One request for as many generations as there are places."""
    hi = [{"role": "user", "content": "Tell me a long story."}]
    chat = {"model": target.model, "messages": hi, "n": 72, "max_tokens": 200}
    batch = {"prompts": [f"Story {i}" for i in range(60)], "max_length": 200}
    for attempt in target.attempts():
        path, body = (CHAT, chat) if attempt % 2 else ("/generate/batch", batch)
        async with target.connection(number) as connection:
            headers = target.identity(number)
            await connection.ask("POST", path, json.dumps(body).encode(), headers=headers)


async def hang_ups(target: Target, number: int) -> None:
    """Go at each stage: after connecting, in the head or the body, before or in the answer."""
    body = json.dumps({"prompt": "Count to a thousand.", "stream": True, "max_length": 500})
    content = request("POST", "/generate", body.encode(), target.identity(number))
    stages = (0, 20, len(content) - len(body), len(content) - 5, len(content))
    for attempt in target.attempts():
        async with target.connection(number) as connection:
            stage = attempt % (len(stages) + 3)
            await connection.send(content[: stages[min(stage, len(stages) - 1)]])
            if stage >= len(stages):
                await asyncio.sleep((0.0, 0.05, 0.5)[stage - len(stages)])
            connection.hang_up()


async def registrations_and_wrong_passwords(target: Target, number: int) -> None:
    """New accounts, and guesses at others' passwords."""
    names = itertools.cycle([*target.victims, "nobody"])
    for attempt in target.attempts():
        async with target.connection(number) as connection:
            if number % 2:
                new = {"username": f"a{number}x{attempt}", "password": f"password {attempt}"}
                await connection.ask("POST", "/register", json.dumps(new).encode())
            else:
                guess = {"username": next(names), "password": f"wrong {attempt}"}
                await connection.ask("POST", "/login", json.dumps(guess).encode())


async def swaps_that_go_away(target: Target, number: int) -> None:
    """Ask for a model that is not in memory, and go before it is."""
    load = request("POST", "/models/load", json.dumps({"model_id": target.other_model}).encode())
    body = {"prompt": "Hi", "max_length": 1, "model_id": target.other_model}
    content = json.dumps(body).encode()
    for attempt in target.attempts():
        async with target.connection(number) as connection:
            named = request("POST", "/generate", content, target.identity(number))
            await connection.send(load if attempt % 2 else named)
            await asyncio.sleep(min(target.left_s, (0.05, 0.3, 1.0, 3.0)[attempt % 4]))
            connection.hang_up()


SHAPES: Final = {
    shape.name: shape
    for shape in (
        Shape("slow bodies", 200, 2_000, slow_bodies),
        Shape("endless bodies", 60, 2_000, endless_bodies),
        Shape("silent connections", 1_100, 5_000, silent_connections),
        Shape("readers that never read", 60, 500, readers_that_never_read),
        Shape("short requests", 32, 50_000, short_requests),
        Shape("large bodies", 4, 200, large_bodies),
        Shape("long prompts", 8, 200, long_prompts),
        Shape("hostile schemas", 8, 500, hostile_schemas),
        Shape("many choices", 4, 100, many_choices),
        Shape("hang-ups", 16, 5_000, hang_ups),
        Shape("registrations and guesses", 64, 5_000, registrations_and_wrong_passwords),
        Shape("swaps that go away", 4, 100, swaps_that_go_away),
    )
}


def act(target: Target, name: str, seconds: float) -> dict[str, int]:
    """Attack in one shape for some seconds; return what came of the attempts, with their numbers.

    Runs in a process of its own: what an attacker's machine does is not the server's.
    """
    return asyncio.run(_act(target, SHAPES[name], seconds))


async def _act(target: Target, shape: Shape, seconds: float) -> dict[str, int]:
    target.until_s = asyncio.get_running_loop().time() + seconds
    target.attempts_left = shape.attempts
    attackers = [asyncio.create_task(shape.act(target, i)) for i in range(shape.attackers)]
    _, late = await asyncio.wait(attackers, timeout=seconds + 5)
    for attacker in late:
        attacker.cancel()
    for result in await asyncio.gather(*attackers, return_exceptions=True):
        if isinstance(result, Exception):
            raise result
    return dict(target.seen)
