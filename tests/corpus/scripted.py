"""Models that say fixed texts, and the real application that serves them one token at a time.

What a client gets in one piece depends on how far the engine runs ahead of the event loop. Here
each step waits until the loop has dealt with what the steps before it gave, so that the bytes of
a stream are the same on every machine.
"""

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from app.errors import EngineFailure
from tests import tiny_model
from tests.e2e import scripted_app
from tests.e2e.decoders import application_with
from tests.fakes import BYTES, CHATML, EOS_ID, byte_ids

PLAIN, FORKS, JSON_TEXT = "corpus/plain", "corpus/forks", "corpus/json"
CALLER, HERMES = "corpus/caller", "corpus/hermes"
MISTRAL, LLAMA = "corpus/mistral", "corpus/llama"
MUTE, FAILING = "corpus/mute", "corpus/failing"
NO_TEMPLATE, BROKEN = "corpus/no-template", "corpus/broken"
CONTEXT = 2048

_FAIL = -1
_CALL = '<tool_call>\n{"name": "weather", "arguments": {"city": "Rome"}}\n</tool_call>'
_CALL_NOW = '<tool_call>\n{"name": "now", "arguments": {}}\n</tool_call>'
SCRIPTS: dict[str, Sequence[int | list[int]]] = {
    PLAIN: byte_ids("Bees hum: zé."),
    # four equally likely letters at each place: which one comes is up to the seed
    FORKS: [byte_ids("aeio"), byte_ids("bcdf")] * 4,
    JSON_TEXT: byte_ids('{"city": "Rome", "people": 3}'),
    CALLER: byte_ids(f"Let me see.\n{_CALL}\n{_CALL_NOW}"),
    HERMES: byte_ids(_CALL),
    MISTRAL: byte_ids('[TOOL_CALLS] [{"name": "weather", "arguments": {"city": "Rome"}}]'),
    LLAMA: byte_ids('{"name": "weather", "parameters": {"city": "Rome"}}'),
    MUTE: [_FAIL],
    FAILING: [*byte_ids("Bees "), _FAIL],
    NO_TEMPLATE: byte_ids("Bees hum."),
}
_TOOLS = "{% if tools %}<|im_start|>tools\n{{ tools | tojson }}<|im_end|>\n{% endif %}"
_TURNS = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}"
    "{% if m.tool_calls %}{{ m.tool_calls | tojson }}{% endif %}"
    "{% if m.tool_call_id %}{{ m.tool_call_id }}{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
TEMPLATES = {
    HERMES: f"{_TOOLS}{{# <tool_call> #}}{_TURNS}",
    MISTRAL: f"{_TOOLS}{{# [TOOL_CALLS] #}}{_TURNS}",
    LLAMA: f'{_TOOLS}{{# "parameters": , knows developer #}}{_TURNS}',
    NO_TEMPLATE: "",
}
_ROUNDS = 40
"""Turns of the event loop that a token may take from the engine to the answer; 16 were enough."""


def write_models(models_dir: Path) -> None:
    """Write `scripted_app`'s models and those of the corpus."""
    scripted_app.write_models(models_dir)
    for model_id in (*SCRIPTS, BROKEN):
        folder = tiny_model.write_tiny_model(
            models_dir,
            model_id,
            vocab_size=BYTES.get_vocab_size(),
            eos_ids=(EOS_ID,),
            tokenizer=BYTES,
            chat_template=TEMPLATES.get(model_id, CHATML),
            context=CONTEXT,
        )
        if model_id == BROKEN:
            (folder / "tokenizer.json").unlink()


class Script(list[int | list[int]]):
    """Tokens, or choices of them; the end for ever after, or a failure."""

    def __getitem__(self, index: Any) -> Any:
        token = super().__getitem__(index) if index < len(self) else EOS_ID
        if token == _FAIL:
            raise EngineFailure("the script fails here")
        return token


class CorpusDecoder(scripted_app.ScriptedDecoder):
    """Says the model's script, one step at a time."""

    def __init__(self, folder: Path, *arguments: Any, **options: Any) -> None:
        super().__init__(folder, *arguments, **options)
        texts = {model_id.replace("/", "--"): script for model_id, script in SCRIPTS.items()}
        self._script = Script(texts.get(folder.name, self._script))

    def run(self, *arguments: Any, **options: Any) -> Any:
        waiting = asyncio.run_coroutine_threadsafe(_settle(), LOOPS[0])
        waiting.result(timeout=60)
        return super().run(*arguments, **options)


LOOPS: list[asyncio.AbstractEventLoop] = []


async def _settle() -> None:
    for _ in range(_ROUNDS):
        await asyncio.sleep(0)


class Application:
    """Passes everything on, and sends a stream when it is whole: Granian's thread keeps no time."""

    def __init__(self, application: Any) -> None:
        self._application = application

    def __rsgi_init__(self, loop: asyncio.AbstractEventLoop) -> None:
        LOOPS.append(loop)
        self._application.__rsgi_init__(loop)

    def __rsgi_del__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._application.__rsgi_del__(loop)

    async def __rsgi__(self, scope: Any, protocol: Any) -> None:
        if f"/{FAILING}/" in scope.path:  # breaks off, which needs what was sent before it
            await self._application.__rsgi__(scope, protocol)
            return
        holding = Holding(protocol)
        await self._application.__rsgi__(scope, holding)
        if holding.start is not None:
            stream = protocol.response_stream(*holding.start)
            await stream.send_bytes(b"".join(holding.chunks))


class Holding:
    """Granian's protocol, with a stream that takes everything at once."""

    def __init__(self, protocol: Any) -> None:
        self._protocol = protocol
        self.start: tuple[int, list[tuple[str, str]]] | None = None
        self.chunks: list[bytes] = []

    def __aiter__(self) -> Any:
        return aiter(self._protocol)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._protocol, name)

    def response_stream(self, status: int, headers: list[tuple[str, str]]) -> "Holding":
        self.start = status, headers
        return self

    async def send_bytes(self, chunk: bytes) -> None:
        self.chunks.append(chunk)


def __getattr__(name: str) -> object:
    if name == "app":
        globals()["app"] = application = Application(application_with(CorpusDecoder))
        return application
    raise AttributeError(name)
