"""Turn a conversation into the text that a model was trained to continue.

Renders exactly as Transformers does, in a process with limits (`template_process`): a template is
a program that came with a model. Knows nothing about token ids.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any, Final

from app.catalog.call_arguments import called_arguments
from app.catalog.render_template import BROKEN, REFUSED, UNKNOWN
from app.catalog.template_process import TEMPLATES, TemplateProcess
from app.contract.conversation import ChatMessage, Tool, ToolCall
from app.errors import InvalidParameter, ModelBroken

MAX_SOURCE: Final = 1_000_000
"""Characters; the longest that is known has 30,000."""


class ChatTemplate:
    """One model's template."""

    def __init__(
        self,
        source: str,
        *,
        bos_token: str | None = None,
        eos_token: str | None = None,
        process: TemplateProcess = TEMPLATES,
    ) -> None:
        """Compile.

        Args:
            source: the template's.
            bos_token: what begins a text; None if the model has none.
            eos_token: what ends a text; None if the model has none.
            process: renders it.

        Raises:
            ModelBroken: the source is no template, or compiling it takes more than it may.
        """
        if len(source) > MAX_SOURCE:
            raise ModelBroken(f"chat template: {len(source)} characters, at most {MAX_SOURCE}")
        self.source = source
        self._process = process
        self._name = hashlib.sha256(source.encode(errors="surrogatepass")).hexdigest()
        # An absent token stays undefined, which templates test for; None would print "None".
        tokens = {"bos_token": bos_token, "eos_token": eos_token}
        self._variables = {name: token for name, token in tokens.items() if token is not None}
        self.takes_tools = "tools" in self._compile()
        """Whether the template shows tools to the model."""
        # Trying would not do: many templates print any role, also one the model has never seen.
        self._knows_developer = "developer" in source

    def render(
        self,
        messages: Sequence[ChatMessage],
        tools: Sequence[Tool] = (),
        *,
        options: Mapping[str, Any] | None = None,
        add_generation_prompt: bool = True,
    ) -> str:
        """Write the conversation out, with the opening of the assistant's turn at its end.

        A developer's turn becomes a system's where the template has no word of developers. Waits
        for another process.

        Raises:
            InvalidParameter: the template takes no such conversation (roles, their order), or
                a tool call's arguments are no JSON object, whole or cut off.
            ModelBroken: the template tried to leave its sandbox, fails by itself, or takes more
                time or memory than it may.
        """
        values = {
            **(options or {}),  # in front: none of them stands for the conversation
            "messages": [self._turn(message) for message in messages],
            "tools": [_described(tool) for tool in tools] or None,
            "documents": None,
            "add_generation_prompt": add_generation_prompt,
            **self._variables,
        }
        try:
            kind, content = self._ask(values=values)
        except RecursionError as error:
            limit = "JSON schemas of at most some hundred levels"
            raise InvalidParameter("tools", f"{len(tools)} tools", limit) from error
        if kind == UNKNOWN:  # the process is a new one, or others have pushed the template out
            self._compile()
            kind, content = self._ask(values=values)
        if kind == REFUSED:
            roles = [message.role for message in messages]
            limit = f"what the model's chat template takes: {content}"
            raise InvalidParameter("messages", roles, limit)
        return content

    def _compile(self) -> list[str]:
        """Compile in the process; return the variables that the template reads."""
        _, content = self._ask(source=self.source)
        variables: list[str] = json.loads(content)
        return variables

    def _ask(self, **request: Any) -> tuple[bytes, str]:
        kind, content = self._process.ask({"template": self._name, **request})
        if kind == BROKEN:
            raise ModelBroken(f"chat template: {content}")
        return kind, content

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
        if message.reasoning is not None:
            turn["reasoning_content"] = message.reasoning
        if message.name is not None:
            turn["name"] = message.name
        return turn


def _called(call: ToolCall) -> dict[str, Any]:
    """Write a call as templates expect it: the arguments are an object, not its text."""
    function = {"name": call.name, "arguments": called_arguments(call.arguments)}
    return {"id": call.id, "type": "function", "function": function}


def _described(tool: Tool) -> dict[str, Any]:
    function: dict[str, Any] = {"name": tool.name}
    if tool.description is not None:
        function["description"] = tool.description
    # templates reach into `properties` without asking
    parameters = tool.parameters or {"type": "object", "properties": {}}
    return {"type": "function", "function": {**function, "parameters": parameters}}
