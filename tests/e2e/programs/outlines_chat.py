"""Structured output by outlines, on both of its clients: `outlines_chat.py URL MODEL`; JSON."""

import json
import sys
from typing import Literal

import outlines
from openai import OpenAI
from outlines.inputs import Chat
from outlines.types import CFG, JsonSchema, Regex
from pydantic import BaseModel, ConfigDict


class City(BaseModel):
    """A city."""

    model_config = ConfigDict(extra="forbid")
    name: Literal["Tokyo", "Kyoto"]
    is_capital: bool


url, name = sys.argv[1:]
client = OpenAI(base_url=f"{url}/v1", api_key="EMPTY", max_retries=0)
question = "What is the capital of Japan?"
chat = Chat(
    [
        {"role": "system", "content": "You answer questions about cities."},
        {"role": "user", "content": question},
    ]
)
options = {"temperature": 0, "max_tokens": 60}
openai, vllm = outlines.from_openai(client, name), outlines.from_vllm(client, name)
found = {
    "text": openai(question, **options),
    "told": openai(chat, **options),
    "streamed": list(openai.stream(question, **options)),
    "openai": City.model_validate_json(openai(question, City, **options)).name,
    "vllm": City.model_validate_json(vllm(question, City, **options)).name,
    "schema": json.loads(vllm(question, JsonSchema(City.model_json_schema()), **options))["name"],
    "choice": vllm(question, Literal["Tokyo", "Kyoto"], **options),
    "regex": vllm(question, Regex("[A-Z][a-z]{3,8}"), **options),
    "grammar": vllm(question, CFG('root ::= "Tokyo" | "Kyoto"'), **options),
    "pieces": list(vllm.stream(question, City, **options)),
}
json.dump(found, sys.stdout)
