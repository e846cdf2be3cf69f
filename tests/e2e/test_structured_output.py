"""Random JSON schemas against the real model: what is finished validates, what is bad is a 400.

`SCHEMAS=300` in the environment sends that many good ones and two thirds as many bad ones;
without it a few, so that the suite stays short. `SCHEMAS_SEED` draws others.
"""

import asyncio
import copy
import json
import os
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from statistics import median
from typing import Any

import hypothesis
import jsonschema_rs
import openai
import pytest
from hypothesis import HealthCheck, Phase
from hypothesis import strategies as st
from openai import AsyncOpenAI

from tests.e2e.server import DEFAULT_MODEL, Server
from tests.generation.test_structured import ENDLESS, nested_list, schemas

NUM_SCHEMAS = int(os.environ.get("SCHEMAS", "36"))
NUM_BAD = NUM_SCHEMAS * 2 // 3
SEED = int(os.environ.get("SCHEMAS_SEED", "0"))
TRIES = 4
AT_ONCE = 16
MAX_TOKENS = 160

# each is wrong wherever it stands inside a schema
BAD: list[dict[str, Any]] = [
    {"type": "strin"},
    {"type": 3},
    {"type": "object", "properties": []},
    {"type": "array", "items": 3},
    {"anyOf": {}},
    {"minimum": "3"},
    {"type": "object", "minLenght": 3},
    {"not": {"type": "string"}},
    {"type": "array", "uniqueItems": True},
    {"if": {"type": "string"}, "then": {"maxLength": 1}},
    {"type": "array", "contains": {"const": 1}},
    {"type": "object", "propertyNames": {"pattern": "^a"}},
    {"type": "object", "minProperties": 2},
    {"type": "array", "minItems": 10**9},
    {"type": "string", "pattern": "("},
    {"type": "string", "pattern": "(?=a)b"},
    {"type": "string", "pattern": r"(a)\1"},
    {"$ref": "#/$defs/nowhere"},
    {"$ref": "http://127.0.0.1:9/schema.json"},
    {"enum": ["x" * 70_000]},
    {"const": nested_list(200)},
    *ENDLESS.values(),
]


def draw(strategy: st.SearchStrategy, count: int) -> list[Any]:
    """Different values of a strategy, the same whenever the seed is."""
    drawn: list[Any] = []

    @hypothesis.seed(SEED)
    @hypothesis.settings(
        max_examples=count,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @hypothesis.given(strategy)
    def collect(value: Any) -> None:
        drawn.append(value)

    collect()
    return drawn[:count]


def placed(bad: dict[str, Any], good: dict[str, Any], places: list[str]) -> dict[str, Any]:
    """A schema with a bad one inside it, which an answer could not leave out."""
    schema = copy.deepcopy(bad)
    for place in places:
        schema = {
            "property": {
                "type": "object",
                "properties": {"good": good, "bad": schema},
                "required": ["good", "bad"],
            },
            "item": {"type": "array", "items": schema, "minItems": 1, "maxItems": 3},
            "each": {"allOf": [schema]},
        }[place]
    return schema


def response_format(schema: dict[str, Any]) -> dict[str, Any]:
    named = {"name": "random", "schema": schema, "strict": True}
    return {"type": "json_schema", "json_schema": named}


@pytest.fixture
async def client(server: Server) -> AsyncIterator[AsyncOpenAI]:
    async with AsyncOpenAI(
        base_url=f"{server.url}/v1", api_key="EMPTY", max_retries=0, timeout=300
    ) as client:
        yield client


async def test_every_finished_answer_validates(client: AsyncOpenAI):
    """Sampled with the default temperature; every other one is streamed.

    hypothesis also draws schemas that are refused (nothing satisfies them, or their oneOf can't
    be enforced), so more are drawn than are to be answered.
    """
    texts: list[tuple[dict[str, Any], str, str]] = []
    refused: list[str | None] = []
    remaining = iter(enumerate(draw(schemas, 2 * NUM_SCHEMAS)))

    async def answer(number: int, schema: dict[str, Any]) -> tuple[str, str]:
        messages = [{"role": "user", "content": f"Give an example of {json.dumps(schema)[:300]}."}]
        asked = {
            "model": DEFAULT_MODEL,
            "messages": messages,
            "max_tokens": MAX_TOKENS,
            "seed": number,
            "response_format": response_format(schema),
        }
        if number % 2:
            [choice] = (await client.chat.completions.create(**asked)).choices
            return choice.message.content or "", choice.finish_reason
        text, reason = "", ""
        async for chunk in await client.chat.completions.create(**asked, stream=True):
            text += chunk.choices[0].delta.content or ""
            reason = chunk.choices[0].finish_reason or ""
        return text, reason

    async def work() -> None:
        for number, schema in remaining:
            try:
                text, reason = await answer(number, schema)
            except openai.BadRequestError as error:
                refused.append(error.param)
            else:
                texts.append((schema, text, reason))
            if len(texts) >= NUM_SCHEMAS:
                return

    began_s = time.monotonic()
    await asyncio.gather(*(work() for _ in range(AT_ONCE)))
    took_s = time.monotonic() - began_s

    finished = [(schema, text) for schema, text, reason in texts if reason == "stop"]
    lengths = sorted(len(text) for _, text in finished)
    print(  # noqa: T201 # figures for who runs it with -s
        f"\nseed {SEED}: {len(texts)} schemas answered in {took_s:.0f} s, {len(refused)} refused; "
        f"{len(finished)} answers finished, {len(set(finished_texts(finished)))} different, "
        f"characters median {median(lengths)}, longest {lengths[-1]}"
    )
    for schema, text in finished:
        jsonschema_rs.Draft202012Validator(schema).validate(json.loads(text))
    assert {reason for _, _, reason in texts} <= {"stop", "length"}
    assert all(param and param.startswith("response_format") for param in refused), refused
    assert len(texts) >= NUM_SCHEMAS
    assert len(finished) > 0.6 * len(texts), "most must come to their end or this proves little"
    assert len(set(finished_texts(finished))) > 0.3 * len(finished)


def finished_texts(finished: list[tuple[dict[str, Any], str]]) -> list[str]:
    return [text for _, text in finished]


@dataclass
class Stream:
    """A stream beside which the bad schemas are sent."""

    text: str = ""
    gaps_s: list[float] = field(default_factory=list)
    reason: str = ""

    async def read(self, client: AsyncOpenAI, number: int, max_tokens: int) -> None:
        stream = await client.completions.create(
            model=DEFAULT_MODEL,
            prompt=f"A very long story, number {number}.",
            max_tokens=max_tokens,
            temperature=0,
            stream=True,
            extra_body={"ignore_eos": True},
        )
        last_s = time.monotonic()
        async for chunk in stream:
            now_s = time.monotonic()
            self.gaps_s.append(now_s - last_s)
            last_s = now_s
            self.text += chunk.choices[0].text
            self.reason = chunk.choices[0].finish_reason or ""


async def test_a_bad_schema_is_a_400_soon_and_disturbs_no_stream(client: AsyncOpenAI):
    """With others where it took too long: a busy machine delays some, and not each time."""
    bad = st.builds(
        placed,
        st.sampled_from(BAD),
        schemas,
        st.lists(st.sampled_from(["property", "item", "each"]), max_size=3),
    )
    cases = draw(bad, TRIES * NUM_BAD)
    quiet = Stream()
    await quiet.read(client, 0, 200)
    longest_gap_s = max(0.5, 3 * max(quiet.gaps_s))
    for begin in range(0, len(cases), NUM_BAD):
        tried = cases[begin : begin + NUM_BAD]
        took_s, gaps_s = await refuse_beside_a_stream(client, quiet, tried)
        p95_s, max_s = took_s[len(took_s) * 95 // 100], took_s[-1]
        print(  # noqa: T201 # figures for who runs it with -s
            f"\nseed {SEED}: {len(tried)} bad schemas, refused after {median(took_s):.2f} s, at "
            f"most {max_s:.2f} s; the stream's gaps median {median(gaps_s) * 1000:.0f} ms, "
            f"p99 {gaps_s[len(gaps_s) * 99 // 100] * 1000:.0f} ms, "
            f"at most {gaps_s[-1] * 1000:.0f} ms, "
            f"without them median {median(quiet.gaps_s) * 1000:.0f} ms, "
            f"at most {max(quiet.gaps_s) * 1000:.0f} ms"
        )
        # the worst are ended after so much processor time, which a busy machine stretches
        if p95_s < 1.0 and max_s < 10.0 and gaps_s[-1] < longest_gap_s:
            return
    raise AssertionError(f"{TRIES} times too long, at last {p95_s}, {max_s}, {gaps_s[-1]}")


async def refuse_beside_a_stream(
    client: AsyncOpenAI, quiet: Stream, cases: list[dict[str, Any]]
) -> tuple[list[float], list[float]]:
    """How long each refusal took, and the gaps of a stream meanwhile; both from short to long."""
    beside = Stream()
    reading = asyncio.create_task(beside.read(client, 0, 4000))
    while not beside.text:
        await asyncio.sleep(0.01)
    begin, took_s = len(beside.gaps_s), []
    for schema in cases:
        before_s = time.monotonic()
        with pytest.raises(openai.BadRequestError) as refused:
            await client.chat.completions.create(
                model=DEFAULT_MODEL,
                messages=[{"role": "user", "content": "Hi"}],
                response_format=response_format(schema),
            )
        took_s.append(time.monotonic() - before_s)
        assert refused.value.param.startswith("response_format"), refused.value
        assert len(str(refused.value)) < 2000, "what was sent need not come back whole"
    gaps_s = sorted(beside.gaps_s[begin:])
    while len(beside.text) < len(quiet.text):
        assert not reading.done(), "it must run all the time or this proves less"
        await asyncio.sleep(0.01)
    reading.cancel()
    assert beside.text.startswith(quiet.text), "its text must be what it is alone"
    return sorted(took_s), gaps_s
