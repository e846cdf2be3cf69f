"""Turn a conversation into the text that a model was trained to continue.

Renders exactly as Transformers does. Knows nothing about token ids. A template is a program
that came with a model, so it runs in jinja's sandbox.

Source: `_compile_jinja_template` in Transformers' utils/chat_template_utils.py.
"""

import json
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any

import jinja2
import jinja2.ext
from jinja2.exceptions import SecurityError
from jinja2.meta import find_undeclared_variables
from jinja2.nodes import CallBlock, Node
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

from app.contract.conversation import ChatMessage, Tool, ToolCall
from app.errors import InvalidParameter, ModelBroken


class ChatTemplate:
    """One model's compiled template."""

    def __init__(
        self, source: str, *, bos_token: str | None = None, eos_token: str | None = None
    ) -> None:
        """Compile.

        Raises:
            ModelBroken: the source is no template.
        """
        self.source = source
        # An absent token stays undefined, which templates test for; None would print "None".
        tokens = {"bos_token": bos_token, "eos_token": eos_token}
        self._variables = {name: token for name, token in tokens.items() if token is not None}
        environment = _environment()
        try:
            self._template = environment.from_string(source)
            read = find_undeclared_variables(environment.parse(source))
        except jinja2.TemplateSyntaxError as error:
            raise ModelBroken(f"chat template, line {error.lineno}: {error.message}") from error
        self.takes_tools = "tools" in read
        """Whether the template shows tools to the model."""
        # Trying would not do: many templates print any role, also one the model has never seen.
        self._knows_developer = "developer" in source

    def render(
        self,
        messages: Sequence[ChatMessage],
        tools: Sequence[Tool] = (),
        *,
        add_generation_prompt: bool = True,
    ) -> str:
        """Write the conversation out, with the opening of the assistant's turn at its end.

        A developer's turn becomes a system's where the template has no word of developers.

        Raises:
            InvalidParameter: the template takes no such conversation (roles, their order), or
                a tool call's arguments are not the text of a JSON object.
            ModelBroken: the template tried to leave its sandbox, or fails by itself.
        """
        turns = [self._turn(message) for message in messages]
        try:
            return self._template.render(
                messages=turns,
                tools=[_described(tool) for tool in tools] or None,
                documents=None,
                add_generation_prompt=add_generation_prompt,
                **self._variables,
            )
        except SecurityError as error:
            raise ModelBroken(f"chat template: {error}") from error
        except jinja2.TemplateError as error:
            roles = [message.role for message in messages]
            limit = f"what the model's chat template takes: {error}"
            raise InvalidParameter("messages", roles, limit) from error
        except Exception as error:  # a program of unknown origin may raise anything
            raise ModelBroken(f"chat template: {type(error).__name__}: {error}") from error

    def _turn(self, message: ChatMessage) -> dict[str, Any]:
        """What templates read; a key is there only where it says something."""
        role = message.role
        if role == "developer" and not self._knows_developer:
            role = "system"
        turn: dict[str, Any] = {"role": role, "content": message.text}
        if message.tool_calls:
            turn["tool_calls"] = [_called(call) for call in message.tool_calls]
        if message.tool_call_id is not None:
            turn["tool_call_id"] = message.tool_call_id
        if message.name is not None:
            turn["name"] = message.name
        return turn


def _called(call: ToolCall) -> dict[str, Any]:
    """A call as templates expect it: the arguments are an object, not its text."""
    try:
        arguments = json.loads(call.arguments)
    except (ValueError, RecursionError):
        arguments = None
    if not isinstance(arguments, dict):
        raise InvalidParameter(
            "messages[].tool_calls[].function.arguments",
            call.arguments,
            "the text of a JSON object",
        )
    function = {"name": call.name, "arguments": arguments}
    return {"id": call.id, "type": "function", "function": function}


def _described(tool: Tool) -> dict[str, Any]:
    function: dict[str, Any] = {"name": tool.name}
    if tool.description is not None:
        function["description"] = tool.description
    # templates reach into `properties` without asking
    parameters = tool.parameters or {"type": "object", "properties": {}}
    return {"type": "function", "function": {**function, "parameters": parameters}}


class _Generation(jinja2.ext.Extension):
    """`{% generation %} … {% endgeneration %}`: marks text for training; here just its body."""

    tags = {"generation"}  # noqa: RUF012 # jinja's own annotation

    def parse(self, parser: Parser) -> Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return CallBlock(self.call_method("_body"), [], [], body).set_lineno(line)

    def _body(self, caller: Callable[[], str]) -> str:
        return caller()


def _environment() -> ImmutableSandboxedEnvironment:
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True,
        lstrip_blocks=True,
        extensions=[_Generation, jinja2.ext.loopcontrols],
    )
    environment.filters["tojson"] = _tojson
    environment.globals["raise_exception"] = _raise_exception
    environment.globals["strftime_now"] = _strftime_now
    return environment


def _tojson(
    value: object,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    # jinja's own filter escapes HTML characters
    return json.dumps(
        value,
        ensure_ascii=ensure_ascii,
        indent=indent,
        separators=separators,
        sort_keys=sort_keys,
    )


def _raise_exception(message: str) -> None:
    raise jinja2.TemplateError(message)


def _strftime_now(form: str) -> str:
    return datetime.now().strftime(form)  # noqa: DTZ005 # Transformers gives local time
