"""Say what is wrong with an answer, whatever the request was.

A refusal has to be one: a status of 4xx, with the envelope that the document promises, and nothing
in it of the server's inside. Knows no endpoint but by the document.
"""

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

from bench.fuzz.operations import Operation
from bench.fuzz.values import FORGED
from bench.raw_http import Answer

INSIDES: Final = (
    *(b"Traceback (most recent call last)", b"site-packages", b"/lib/python", b'.py"', b".py'"),
    *(b"sqlalchemy", b"sqlite3.", b"onnxruntime", b"msgspec.", b"argon2id$", b"object at 0x"),
)
"""What no answer may quote; no request contains any of it."""
STREAMS: Final = ("text/event-stream", "application/x-ndjson")
FAILED: Final = (b'"server_error"', b"Internal Server Error", b"engine_failure")
"""What a stream says when the server, not the request, was wrong."""
BROKEN_LOG: Final = re.compile(
    r"^Traceback|unexpected_error|panicked|engine_broken|sequence_failed|never retrieved|"
    rf"model_restarted|^{FORGED}|\[ERROR\]|\[CRITICAL\]"
)
_JSON: Final = "application/json"


class Judge:
    """Judges answers by the operations of a document.

    Args:
        operations: of the document.
        envelopes: keys of any refusal's object, for what no operation documents.
        paths: of the server's files, which no answer may quote.
    """

    def __init__(
        self,
        operations: list[Operation],
        envelopes: frozenset[frozenset[str]],
        paths: tuple[str, ...],
    ) -> None:
        self._answers = {(o.method, o.path): o.answers for o in operations}
        self._envelopes = envelopes
        self._insides = INSIDES + tuple(path.encode() for path in paths)

    def faults(
        self, answer: Answer, operation: Operation | None, *, well_formed: bool, to_head: bool
    ) -> Iterator[str]:
        """What is wrong with an answer.

        Args:
            answer: as it came.
            operation: that the request is sure to have reached; None: not known.
            well_formed: whether the application must have made the answer, and not the server
                that reads HTTP for it.
            to_head: whether the request was HEAD.
        """
        documented = {} if operation is None else self._answers[operation.method, operation.path]
        if answer.status >= 500 and not self._excused(answer, documented, to_head=to_head):
            yield f"{answer.status}"
        if not answer.whole:
            yield f"{answer.status} broken off"
        if answer.status >= 400 and well_formed and not to_head:
            yield from self._no_envelope(answer, documented)
        if answer.status < 400:
            yield from _bad_success(answer)
        everything = answer.body + repr(answer.headers).encode()
        for inside in self._insides:
            if inside in everything:
                yield f"{answer.status} quotes {inside.decode()!r}"

    def _excused(
        self, answer: Answer, documented: Mapping[int, frozenset[str]], *, to_head: bool
    ) -> bool:
        """Whether it is a documented 503, or 529 (Anthropic's word for a full queue), and says why.

        An answer to HEAD may have no body.
        """
        says_why = to_head or len(answer.body) > len(b'{"a":"b"}')
        return answer.status in (503, 529) and answer.status in documented and says_why

    def _no_envelope(
        self, answer: Answer, documented: Mapping[int, frozenset[str]]
    ) -> Iterator[str]:
        expected = documented.get(answer.status)
        allowed = [expected] if expected else list(self._envelopes)
        found = _object(answer)
        if not any(keys <= found.keys() for keys in allowed):
            yield f"{answer.status} without an envelope"


def broken_lines(log: str) -> list[str]:
    """Lines of a server's log that tell of something that no request may cause."""
    return [line for line in log.splitlines() if BROKEN_LOG.search(line)]


def _object(answer: Answer) -> dict[str, Any]:
    if answer.media_type != _JSON:
        return {}
    try:
        found = json.loads(answer.body)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _bad_success(answer: Answer) -> Iterator[str]:
    if answer.media_type in STREAMS and any(words in answer.body for words in FAILED):
        yield f"{answer.status} and then a failure of the server"
    if answer.media_type == _JSON and answer.body:
        try:
            json.loads(answer.body, parse_constant=_refuse)
        except ValueError as error:
            yield f"{answer.status} with invalid JSON: {error}"
    elif answer.media_type.startswith("text/"):
        try:
            answer.body.decode()
        except UnicodeDecodeError as error:
            yield f"{answer.status} that is not UTF-8: {error}"


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is no JSON")
