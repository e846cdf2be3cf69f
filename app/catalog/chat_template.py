"""Turn a conversation into the text that a model was trained to continue.

Renders exactly as Transformers does. Knows nothing about token ids. A template is a program
that came with a model, so it runs in jinja's sandbox.

Source: `_compile_jinja_template` in Transformers' utils/chat_template_utils.py.
"""

import json
from collections.abc import Callable, Sequence
from datetime import datetime

import jinja2
import jinja2.ext
import msgspec
from jinja2.exceptions import SecurityError
from jinja2.nodes import CallBlock, Node
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

from app.errors import InvalidParameter, ModelBroken


class ChatMessage(msgspec.Struct, frozen=True):
    """One turn of a conversation."""

    role: str
    content: str


class ChatTemplate:
    """One model's compiled template."""

    def __init__(
        self, source: str, *, bos_token: str | None = None, eos_token: str | None = None
    ) -> None:
        """Compile.

        Raises:
            ModelBroken: the source is no template.
        """
        # An absent token stays undefined, which templates test for; None would print "None".
        tokens = {"bos_token": bos_token, "eos_token": eos_token}
        self._variables = {name: token for name, token in tokens.items() if token is not None}
        try:
            self._template = _environment().from_string(source)
        except jinja2.TemplateSyntaxError as error:
            raise ModelBroken(f"chat template, line {error.lineno}: {error.message}") from error

    def render(self, messages: Sequence[ChatMessage], *, add_generation_prompt: bool = True) -> str:
        """Write the conversation out, with the opening of the assistant's turn at its end.

        Raises:
            InvalidParameter: the template takes no such conversation (roles, their order).
            ModelBroken: the template tried to leave its sandbox, or fails by itself.
        """
        try:
            return self._template.render(
                messages=[{"role": m.role, "content": m.content} for m in messages],
                tools=None,
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
