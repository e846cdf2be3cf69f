"""`POST /api/chat` and `/api/generate`: what is sent, and the request that it means.

What changes no answer's meaning is passed over and said (`kit.passed_over`), and so are fields that
nobody knows: Ollama's clients are used to that.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Final, Literal, TypeVar

import msgspec
from msgspec import Meta

from app.contract.conversation import ChatMessage, Tool
from app.contract.formats import JsonObject, JsonSchema
from app.contract.generation import GenerationRequest, Reasoning
from app.dialects.kit.body import Body, to_record
from app.dialects.kit.passed_over import PassedOver
from app.dialects.kit.tools import differently_named
from app.dialects.ollama.conversation import TEXT_ALONE, Message, is_beginning, to_messages
from app.dialects.ollama.options import Options
from app.errors import Unsupported

T = TypeVar("T", bound="Asked")

ModelName = Annotated[
    str,
    Meta(
        min_length=1,
        description="With or without `:latest`, and without its publisher where that is clear.",
        examples=["HuggingFaceTB/SmolLM2-135M-Instruct"],
    ),
]
MOST_OF_A_DURATION: Final = 64
KeepAlive = Annotated[
    float | Annotated[str, Meta(max_length=MOST_OF_A_DURATION)] | None,
    Meta(description="Seconds or a duration (`5m`) that the model stays in memory unused."),
]
PASSED_OVER: Final[Mapping[str, str]] = {
    "shift": "nothing is cut from a conversation here",
    "truncate": "nothing is cut from a prompt here",
}
NO_THINKING: Final = "this model doesn't think before it answers"


class Function(msgspec.Struct, frozen=True, kw_only=True):
    """A function that the model may ask to be called."""

    name: Annotated[str, Meta(min_length=1, max_length=128)]
    description: str | None = None
    parameters: dict[str, Any] | None = None


class ToolSent(msgspec.Struct, frozen=True, kw_only=True):
    """A tool."""

    function: Function
    type: Literal["function"] = "function"


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """Fields that chats and generations share."""

    model: ModelName
    format: Annotated[
        Literal["", "json"] | dict[str, Any], Meta(description="json, or a JSON Schema.")
    ] = ""
    options: Annotated[dict[str, Any], Meta(description="By name, as in Ollama's Modelfile.")] = {}
    stream: bool = True
    keep_alive: KeepAlive = None
    think: Annotated[
        bool | str | None,
        Meta(description="false: not at all; low, medium or high: so much, where a model can."),
    ] = None
    logprobs: bool = False
    top_logprobs: Annotated[int, Meta(ge=0, le=20)] = 0

    @property
    def empty(self) -> bool:
        """Whether nothing is asked but that the model be loaded, or leave."""
        raise NotImplementedError

    def note_thinking(self, passed_over: PassedOver, *, thinks: bool) -> None:
        """Note that a model is to think that can't, now that it is known.

        Raises:
            Unsupported: the server is strict.
        """
        if self.think and not thinks:
            passed_over.note("think", self.think, NO_THINKING)

    def _reasoning(self) -> Reasoning:
        if self.think is False:
            return Reasoning("none")
        return Reasoning(self.think) if isinstance(self.think, str) and self.think else Reasoning()

    def _request(self, options: Options, **fields: Any) -> GenerationRequest:
        """Make the request out of what is shared, and more."""
        wanted = self.format
        return GenerationRequest(
            max_tokens=options.max_tokens,
            sampling=options.sampling(),
            stop=options.stops,
            reasoning=self._reasoning(),
            top_logprobs=self.top_logprobs if self.logprobs else None,
            response_format=JsonSchema(wanted)
            if isinstance(wanted, dict)
            else (JsonObject() if wanted else None),
            **fields,
        )


class ChatBody(Asked, frozen=True, kw_only=True):
    """`POST /api/chat`."""

    messages: Annotated[
        list[Message], Meta(examples=[[{"role": "user", "content": "Say hello."}]])
    ] = []
    tools: Annotated[list[ToolSent], Meta(max_length=1024)] = []

    @property
    def empty(self) -> bool:
        """Whether nothing is asked but that the model be loaded, or leave."""
        return not self.messages

    def request(self, options: Options) -> GenerationRequest:
        """Make the request.

        Raises:
            InvalidParameter, Unsupported: a message that its role doesn't allow, or that is not
                text; or two tools have one name.
        """
        functions = [tool.function for tool in self.tools]
        tools = [
            Tool(name=one.name, description=one.description, parameters=one.parameters or {})
            for one in functions
        ]
        differently_named(tools, "tools[{}].function.name")
        turns = to_messages(self.messages)
        continues = is_beginning(turns[-1])
        return self._request(options, messages=turns, tools=tools, continues=continues)


class GenerateBody(Asked, frozen=True, kw_only=True):
    """`POST /api/generate`."""

    prompt: str = ""
    system: str = ""
    raw: Annotated[bool, Meta(description="The prompt is tokenized as it is.")] = False
    suffix: Annotated[str, Meta(description="Refused: models here write no middles.")] = ""
    template: Annotated[str, Meta(description="Refused: the model's own is used.")] = ""
    images: Annotated[list[str], Meta(description="Refused: models here read text alone.")] = []
    context: Annotated[
        list[int], Meta(description="Refused: earlier turns are sent to /api/chat.")
    ] = []

    @property
    def empty(self) -> bool:
        """Whether nothing is asked but that the model be loaded, or leave."""
        return not self.prompt

    def request(self, options: Options) -> GenerationRequest:
        """Make the request: by the chat template where the model has one, unless it is raw.

        Raises:
            Unsupported: a field that can't be served.
        """
        for name, reason in (
            ("suffix", "models here write no middles"),
            ("template", "the model's own template is used; raw: true takes a prompt as it is"),
            ("images", TEXT_ALONE),
            ("context", "nothing is kept between requests; /api/chat takes earlier turns"),
        ):
            if value := getattr(self, name):
                raise Unsupported(name, value, reason)
        if self.raw:
            return self._request(options, prompt=self.prompt)
        turns = [("system", self.system), ("user", self.prompt)]
        messages = [ChatMessage.of(role, text) for role, text in turns if text]
        # a model without a template goes on from the prompt
        return self._request(
            options, messages=messages, prompt="\n\n".join(text for _, text in turns if text)
        )


def read(body: Body, kind: type[T], passed_over: PassedOver) -> T:
    """Check a body's fields against a record's.

    Raises:
        InvalidParameter, Unsupported: the first field that is wrong.
    """
    kept: Body = {}
    for name, value in body.items():
        if name in kind.__struct_fields__:
            kept[name] = value
        elif value is not None:
            passed_over.note(name, value, PASSED_OVER.get(name, "there is no such field"))
    return to_record(kept, kind)
