"""Objects by instructor, in several of its ways: `instructor_chat.py URL MODEL`; prints JSON."""

import json
import sys
from typing import Any, Literal

import instructor
from anthropic import Anthropic
from instructor import Mode
from openai import OpenAI
from pydantic import BaseModel, ConfigDict


class City(BaseModel):
    """A city."""

    model_config = ConfigDict(extra="forbid")
    name: Literal["Tokyo", "Kyoto"]
    is_capital: bool


url, model = sys.argv[1:]
asked: dict[str, Any] = {
    "model": model,
    "messages": [
        {"role": "system", "content": "You answer questions about cities."},
        {"role": "user", "content": "What is the capital of Japan?"},
    ],
    "response_model": City,
    "max_retries": 0,
}
openai = OpenAI(base_url=f"{url}/v1", api_key="EMPTY", max_retries=0)
anthropic = Anthropic(base_url=url, api_key="sk-none", max_retries=0)
clients = {
    "tools": instructor.from_openai(openai, mode=Mode.TOOLS, max_tokens=60),
    "schema": instructor.from_openai(openai, mode=Mode.JSON_SCHEMA, max_tokens=60),
    "responses": instructor.from_openai(openai, mode=Mode.RESPONSES_TOOLS, max_output_tokens=60),
    "anthropic": instructor.from_anthropic(anthropic, mode=Mode.ANTHROPIC_TOOLS, max_tokens=60),
}
found = {}
for name, client in clients.items():
    city, answer = client.create_with_completion(**asked)
    found[name] = {"city": city.model_dump(), "tokens": answer.usage.model_dump()}
    if name in ("tools", "schema"):
        parts = list(client.create_partial(**asked))
        found[name] |= {"streamed": parts[-1].model_dump(), "parts": len(parts)}
sys.stdout.write(json.dumps(found) + "\n")
