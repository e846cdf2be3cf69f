"""Programs of DSPy: `dspy_chat.py URL MODEL`; prints JSON."""

import asyncio
import json
import sys
from typing import Any, Literal

import dspy


class Ask(dspy.Signature):
    """Answer a question about cities."""

    question: str = dspy.InputField()
    city: Literal["Tokyo", "Kyoto"] = dspy.OutputField()


def weather(city: Literal["Tokyo", "Kyoto"]) -> str:
    """Tell the weather of a city."""
    return f"sunny in {city}"


async def streamed(program: Any) -> list[str]:
    """The pieces of a program's answer."""
    listener = dspy.streaming.StreamListener(signature_field_name="city")
    streaming = dspy.streamify(program, stream_listeners=[listener])
    return [
        chunk.chunk
        async for chunk in streaming(question="What is the capital of Japan?")
        if isinstance(chunk, dspy.streaming.StreamResponse)
    ]


url, model = sys.argv[1:]
lm = dspy.LM(
    f"lm_studio/{model}",
    api_base=f"{url}/v1",
    api_key="EMPTY",
    temperature=0,
    max_tokens=120,
    cache=False,
    num_retries=0,
)
dspy.configure(lm=lm, adapter=dspy.JSONAdapter())
question = "What is the capital of Japan?"
[plain] = lm(question)
program = dspy.Predict(Ask)
made = program(question=question)
json.dump(
    {
        "plain": plain,
        "city": made.city,
        "usage": lm.history[-1]["usage"]["total_tokens"],
        "asked": str(lm.history[-1]["kwargs"].get("response_format"))[:80],
        "streamed": asyncio.run(streamed(program)),
    },
    sys.stdout,
)
