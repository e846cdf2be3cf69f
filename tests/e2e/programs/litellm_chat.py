"""A conversation by LiteLLM: `litellm_chat.py URL MODEL`; prints JSON as its last line."""

import asyncio
import json
import sys

import litellm

url, model = sys.argv[1:]
options = {
    "model": f"openai/{model}",
    "api_base": f"{url}/v1",
    "api_key": "EMPTY",
    "num_retries": 0,
    "temperature": 0,
}
question = {"role": "user", "content": "What is the capital of Japan?"}


def refusal(**fields: object) -> str:
    """The name of what a request raises."""
    try:
        litellm.completion(**{**options, **fields})
    except Exception as error:  # noqa: BLE001 # its classes have no other common base
        return type(error).__name__
    return "nothing"


answer = litellm.completion(messages=[question], **options).choices[0].message
turns = [question, answer, {"role": "user", "content": "And of France?"}]
chunks = list(litellm.completion(messages=turns, stream=True, **options))
again = asyncio.run(litellm.acompletion(messages=[question], **options))
found = {
    "first": answer.content,
    "second": "".join(chunk.choices[0].delta.content or "" for chunk in chunks),
    "pieces": len(chunks),
    "async": again.choices[0].message.content,
    "too_long": refusal(messages=[{"role": "user", "content": "word " * 9000}]),
    "no_model": refusal(messages=[question], model="openai/no/such"),
}
sys.stdout.write(f"\n{json.dumps(found)}")
