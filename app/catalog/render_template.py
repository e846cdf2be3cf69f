"""Render chat templates in a process of its own, under limits of time and memory.

A script for `template_process`. A template is a program that came with a model: two loops inside
each other, `'a' * 10**10` or a wide `indent` would hold up or end whoever renders it, and nothing
in Python stops them. Here that ends this process and nothing else. Imports nothing of ours.

Reads requests, a head of REQUEST and a JSON object, and writes answers, a head of ANSWER and UTF-8.

Source: `_compile_jinja_template` in Transformers' utils/chat_template_utils.py.
"""

import json
import resource
import signal
import struct
import sys
from collections import OrderedDict
from collections.abc import Callable
from datetime import datetime
from typing import Any

import jinja2
import jinja2.ext
from jinja2.exceptions import SecurityError
from jinja2.meta import find_undeclared_variables
from jinja2.nodes import CallBlock, Node
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

TEXT = b"T"
"""The rendered text."""
VARIABLES = b"V"
"""A JSON list: the names that a template reads."""
REFUSED = b"R"
"""The template takes no such conversation, and why."""
BROKEN = b"B"
"""The template fails by itself, and how."""
UNKNOWN = b"U"
"""The template has to be sent first."""

REQUEST = struct.Struct("<QdQ")
"""Bytes that follow, seconds of processor time, bytes that the answer may have."""
ANSWER = struct.Struct("<Qc")
"""Bytes that follow, and of which kind they are."""

MEMORY_BYTES = 2**30
CACHED = 32
"""Templates that are kept compiled; the least recently used goes first."""


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


class Templates:
    """Compiled templates, by the names that requests give them."""

    def __init__(self) -> None:
        self._compiled: OrderedDict[str, jinja2.Template] = OrderedDict()

    def answer(self, request: dict[str, Any]) -> tuple[bytes, str]:
        """Compile a template, or render one.

        Args:
            request: `template` is a name. With `source`, that is compiled; with `values`, the
                template of this name is rendered with them.

        Returns:
            The kind of the answer, and its content.
        """
        try:
            return self._answer(request["template"], request)
        except MemoryError:
            raise  # ends the process: what follows would be short of memory too
        except Exception as error:  # noqa: BLE001 # a program of unknown origin may raise anything
            return _failure(error)

    def _answer(self, name: str, request: dict[str, Any]) -> tuple[bytes, str]:
        if "source" in request:
            return VARIABLES, json.dumps(sorted(self._compile(name, request["source"])))
        if name not in self._compiled:
            return UNKNOWN, ""
        self._compiled.move_to_end(name)
        text = self._compiled[name].render(**request["values"])
        text.encode()  # fails for half of a surrogate pair
        return TEXT, text

    def _compile(self, name: str, source: str) -> set[str]:
        environment = _environment()
        read = find_undeclared_variables(environment.parse(source))
        self._compiled[name] = environment.from_string(source)
        while len(self._compiled) > CACHED:
            self._compiled.popitem(last=False)
        return read


def _failure(error: Exception) -> tuple[bytes, str]:
    match error:
        case jinja2.TemplateSyntaxError():
            return BROKEN, f"line {error.lineno}: {error.message}"
        case SecurityError():
            return BROKEN, str(error)
        case jinja2.TemplateError():
            return REFUSED, str(error)
    return BROKEN, f"{type(error).__name__}: {error}"


def main() -> None:
    """Answer requests until there are no more."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    sys.setrecursionlimit(3000)  # whatever could be sent can be written out by `tojson`
    templates = Templates()
    source, sink = sys.stdin.buffer, sys.stdout.buffer
    while len(head := source.read(REQUEST.size)) == REQUEST.size:
        size, cpu_s, most_bytes = REQUEST.unpack(head)
        request = json.loads(source.read(size))
        signal.setitimer(signal.ITIMER_PROF, cpu_s)  # ends the process
        kind, content = templates.answer(request)
        encoded = (content if kind in (TEXT, VARIABLES) else content[:500]).encode(errors="replace")
        signal.setitimer(signal.ITIMER_PROF, 0)
        if len(encoded) > most_bytes:
            kind, encoded = BROKEN, b"it writes far more than it was given"
        sink.write(ANSWER.pack(len(encoded), kind) + encoded)
        sink.flush()


if __name__ == "__main__":
    main()
