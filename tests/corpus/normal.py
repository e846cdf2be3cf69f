"""What of an answer is recorded, and what differs between two plays by its nature.

Everything that is not recorded as it came is in the tables below.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from tests.corpus.request import Show

NOT_RECORDED: Final = {
    *("date", "server", "content-length", "transfer-encoding", "connection"),
    *("x-content-type-options", "x-request-id"),
}
"""Headers that are Granian's, and those that every answer has."""
VARYING_HEADERS: Final = {
    "openai-processing-ms": r"\d+",
    "x-ratelimit-remaining": r"\d+",
    "x-ratelimit-remaining-requests": r"\d+",
    "x-ratelimit-reset": r"\d{10}",
    "x-ratelimit-reset-requests": r"\d+",
    "retry-after": r"\d+",
    "retry-after-ms": r"\d+",
}
_TIME: Final = r"1[789]\d{8}\b"
VARYING: Final = {
    "id": (
        r"\b(chatcmpl-|cmpl-|resp_|msg_|fc_|rs_)([0-9a-f]{32})\b",
        r"\b(call_)([0-9a-f]{24})\b",
        r'("id":"|"call_id":")([0-9a-f]{9})(?=")',
    ),
    "uuid": (r"()\b([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})\b",),
    "secret": (r"\b(sk-llmhost-)([A-Za-z0-9]{40})\b",),
    "version": (r'("system_fingerprint":"fp_)([0-9a-f]{10})(?=")',),
    "ending": (r'("ending":")([^"]+)(?=")',),
    "jwt": (r"()\b(eyJ[\w-]+\.[\w-]+\.[\w-]+)",),
    "now": (rf'("(?:created|created_at|completed_at)":)({_TIME})',),
    "time": (r'("(?:created_at|updated_at|expires_at)":")([^"]+)(?=")',),
    # written beside the request that used the key
    "null or time": (r'("last_used_at":)(null|"[^"]+")(?!,"key")',),
    # of files that the installed onnx and tokenizers wrote, and of memory
    "bytes": (r'("(?:memory_used|size_bytes)":)(\d+)',),
    "seconds": (r"(\bwait )(\d+)(?= s\b)",),
}
"""By what is written in place of a pattern's second group; its first one stays."""
UNNUMBERED: Final = {"version", "now", "time", "null or time", "bytes", "seconds"}
"""The others are numbered within an answer, so that equal ones stay equal. Of these, two that
are close to each other may be equal or not."""
# Controls that would not survive as lines of a text file; no answer holds the pictures themselves.
_VISIBLE: Final = {code: 0x2400 + code for code in range(32)} | {
    0x7F: "␡",
    0x85: "<U+0085>",
    0x2028: "<U+2028>",
    0x2029: "<U+2029>",
    0xFEFF: "<U+FEFF>",
}
_LONG: Final = 160
_LONG_EVENT: Final = 1000
"""Characters of a line from which on it is broken between its JSON's fields."""


@dataclass(frozen=True)
class Answer:
    """What came back."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    broke_off: bool = False


@dataclass
class Normaliser:
    """Writes answers down."""

    replaced: Mapping[str, str] = field(default_factory=dict)
    """Further literal texts, such as the folder of the models."""

    def record(self, answer: Answer, show: Show) -> str:
        """Write one answer: status, headers, an empty line, the body."""
        lines = [str(answer.status)]
        for name, value in sorted(answer.headers.items()):
            if name not in NOT_RECORDED:
                lines.append(f"{name}: {_header(name, value)}")
        return "\n".join([*lines, "", self.body(answer, show)])

    def body(self, answer: Answer, show: Show) -> str:
        """Write a body as `show` asks."""
        if show == "break":
            return "(the connection broke off)" if answer.broke_off else "(it did not break off)"
        text = answer.body.decode("utf-8", "backslashreplace")
        match show:
            case "keys":
                return json.dumps(_types(json.loads(text)), indent=1)
            case "series":
                return "\n".join(series(text))
            case "paths":
                return "\n".join(_paths(json.loads(text)))
            case "choices":
                text = by_choice(text)
        broken = "\n(the connection broke off)" if answer.broke_off else ""
        return visible(self._normal(text)) + broken

    def _normal(self, text: str) -> str:
        for literal, stand_in in self.replaced.items():
            text = text.replace(literal, stand_in)
        for kind, patterns in VARYING.items():
            numbers: dict[str, int] = {}

            def name(
                found: re.Match[str], kind: str = kind, numbers: dict[str, int] = numbers
            ) -> str:
                number = numbers.setdefault(found[2], len(numbers) + 1)
                return (
                    f"{found[1]}<{kind}>" if kind in UNNUMBERED else f"{found[1]}<{kind} {number}>"
                )

            for pattern in patterns:
                text = re.sub(pattern, name, text)
        return text


def visible(text: str) -> str:
    """Write a text so that every byte of it can be seen: its line ends are ␊, and where lines of
    the record end means nothing, so that long ones are broken."""
    assert not re.search("[␀-␡]", text), "the text holds what stands for controls"
    shown = re.sub("␊+", r"\g<0>\n", text.translate(_VISIBLE))
    lines: list[str] = []
    for line in shown.split("\n"):
        long = len(line) > (_LONG_EVENT if line.endswith("␊") else _LONG)
        lines += re.split(r'(?<=[,\[{])(?=["{])', line) if long else [line]
    shown = "\n".join(lines)
    return f"{shown[:-1]}␠" if shown.endswith(" ") else shown


def _header(name: str, value: str) -> str:
    if name == "allow":  # Litestar writes a set, so its order is a matter of the process
        return ", ".join(sorted(value.split(", ")))
    return re.sub(VARYING_HEADERS.get(name, "(?!)"), "…", value)


def series(text: str) -> list[str]:
    """Names, labels but for `le`, and types of metrics."""
    found = set()
    for line in text.splitlines():
        if line.startswith("# TYPE"):
            found.add(line)
        elif not line.startswith("#"):
            name = re.sub(r'(le|version|implementation|major|minor|patchlevel)="[^"]*",?', "", line)
            found.add(name.rpartition(" ")[0].replace("{}", ""))
    return sorted(name for name in found if "llmhost_" in name)


def by_choice(text: str) -> str:
    """Sort a stream's events by their choice: how choices interleave is the engine's affair."""
    events = text.split("\n\n")

    def index(event: str) -> int:
        data = event.removeprefix("data: ")
        choices = json.loads(data).get("choices") if data.startswith("{") else None
        return choices[0]["index"] if choices else len(events)

    return "\n\n".join(sorted(events, key=index))


def _types(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _types(inner) for name, inner in value.items()}
    if value is None or isinstance(value, list):
        return "null or array"  # GPUs, which a machine may have
    return "number" if isinstance(value, int | float) else type(value).__name__


def _paths(document: dict[str, Any]) -> list[str]:
    return sorted(
        f"{path} {method} {' '.join(sorted(operation['responses']))}"
        for path, operations in document["paths"].items()
        for method, operation in operations.items()
    )
