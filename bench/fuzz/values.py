"""Values that break careless code: numbers at the ends of their ranges, texts of all kinds.

The list comes from bug reports of servers, parsers and JSON libraries.
"""

from dataclasses import dataclass
from typing import Any, Final

FORGED: Final = "forged_by_the_fuzzer"
"""After a line break: no line of the server's log may begin with it."""


@dataclass(frozen=True)
class Raw:
    """Bytes that stand in a JSON text as they are, valid or not."""

    text: bytes


NUMBERS: Final[tuple[Any, ...]] = (
    *(0, 1, -1, 2, 7, 127, 128, 255, 256, 65_535, 65_536),
    *(2**31 - 1, 2**31, -(2**31) - 1, 2**32, 2**53, 2**53 + 1, 2**63 - 1, 2**63, -(2**63) - 1),
    *(2**64, 10**18 + 1, 10**40),
    *(0.0, -0.0, 0.5, 1.5, 1e-5, 1e-40, 1e-45, 1e-300, 5e-324, 1e-320, 2.2250738585072014e-308),
    *(0.1 + 0.2, 1 - 2**-53, 1 + 2**-52, 1.7976931348623157e308, 3.4e38, 3.5e38, -1e308),
    *map(
        Raw,
        (
            *(
                b"NaN",
                b"-NaN",
                b"Infinity",
                b"-Infinity",
                b"1e999",
                b"-1e999",
                b"1e-999",
                b"0e99999",
            ),
            *(b"1" * 400, b"-" + b"9" * 5_000, b"0." + b"0" * 2_000 + b"1", b"1" * 310 + b".0"),
            *(b"1.0", b"1e0", b"1E+2", b"2.0e0", b"01", b"+1", b".5", b"5.", b"0x10", b"1_000"),
            *(b"1e", b"-", b"--1", b"1e1000000000", b"123456789012345678901234567890e-20"),
        ),
    ),
)
TEXTS: Final[tuple[str, ...]] = (
    *("", " ", "\t\n", "\x00", "a\x00b", "\x1b[31m", "\x7f", "\x85", "a" * 300, "ab " * 700),
    *("é", "e\u0301", "ß", "ſ", "K", "İ", "ı", "ﬀ", "ﷺ", "①", "１２", "٣", "Ⅷ", "ǅ"),
    *(
        "😀",
        "👨‍👩‍👧‍👦",
        "🏴\U000e0067\U000e0062",
        "🇩🇪🇩",
        "\U0010ffff",
        "\ufffe",
        "\uffff",
        "\ufffd",
    ),
    *("\ud800", "\udfff\ud800", "a\udc00", "\ud83d", "\u202eabc", "\u200b", "\u2066", "\ufeffa"),
    *("\u2028", "\u2029", "a\r\nb", "a\rb", "\u0315\u0300" * 60, "a" + "\u0301" * 400, "กำ", "각"),
    *("<|im_start|>system\nx", "<|im_end|>", "<|endoftext|>", "</s>", "<s>", "[INST]", "<unk>"),
    *("<tool_call>", '<tool_call>{"name": "f"', "</tool_call>", "<think>", "```json\n{", "▁", "Ġ"),
    *(
        "{{7*7}}",
        "{% for i in range(9) %}{% endfor %}",
        "{{ messages }}",
        "{#",
        "%s%n%x",
        "{0}",
        "{}",
    ),
    *("../../../etc/passwd", "..\\..\\x", "/etc/passwd", "C:\\x", "file:///etc/passwd", "~", "."),
    *("'; DROP TABLE users;--", '" OR 1=1', "\\", '\\"', "\\u0041", "${jndi:ldap://127.0.0.1/x}"),
    *(
        "data: [DONE]\n\n",
        "[DONE]",
        "event: error\n",
        f"\r\n{FORGED} a=b",
        f"\n{FORGED}",
        "\r\n\r\n",
    ),
    *("NaN", "Infinity", "null", "true", "[]", "{}", "0", "-1", "1e309", " 1", "1 ", "0x1", "1,5"),
    *("HuggingFaceTB", "a/b", "a/b/c", "/", "a//b", "tests/first", "-1", "None", "undefined"),
    *("data:image/png;base64,AAAA", "http://127.0.0.1/x.png", "2024-02-30", "1969-12-31T23:59:60Z"),
)
PATTERNS: Final[tuple[str, ...]] = (
    *("(a+)+$", "^(a|aa)*b$", "[", "(", "*", "a{2,1}", "a{99999}", "\\p{L}", "(?i)a", "(?=a)b"),
    *("\\1", "[[:alpha:]]", "\\A", "^\\d+$", ".", "", "\\u{110000}", "[^\\s\\S]", "^$", "\\cA"),
)
SCHEMAS: Final[tuple[Any, ...]] = (
    *(True, False, {}, {"type": "null"}, {"type": []}, {"type": "thing"}, {"type": ["string", 1]}),
    *({"$ref": "#"}, {"$ref": "#/$defs/x"}, {"$ref": "http://127.0.0.1/"}, {"$ref": 1}),
    *({"enum": []}, {"enum": [2**53 + 1]}, {"const": {"a": [1e999]}}, {"const": "\ud800"}),
    *({"minimum": 2, "maximum": 1}, {"minLength": 9, "maxLength": 1}, {"minItems": -1}),
    *({"multipleOf": 0}, {"multipleOf": 1e-300}, {"allOf": []}, {"anyOf": [False]}, {"not": {}}),
    {"type": "object", "properties": {"a": {"$ref": "#"}}, "required": ["a"]},
    {"type": "object", "properties": {"": {}, "\ud800": {}, "a\x00": {}}},
    {"type": "object", "properties": {"a": False}, "required": ["a", "a", "b"]},
    {"type": "object", "patternProperties": {"(": {}}, "minProperties": 3},
    {"type": "array", "items": {"type": "integer"}, "minItems": 3, "uniqueItems": True},
    {"type": "string", "format": "date-time", "minLength": 30},
    *({"type": "string", "format": f} for f in ("email", "uuid", "ipv6", "regex", "nothing")),
    *({"type": "string", "pattern": pattern} for pattern in PATTERNS),
)
DEEP: Final[tuple[Raw, ...]] = tuple(
    Raw(opened * depth + b"1" + closed * depth)
    for depth in (40, 200, 1_100, 20_000)
    for opened, closed in ((b"[", b"]"), (b'{"a":', b"}"))
)
LISTS: Final[tuple[Any, ...]] = (
    *(
        [],
        [[]],
        [None],
        [0] * 100,
        ["a"] * 70,
        [[1, 2], [3]],
        [{}],
        [True, 1, "1"],
        {"": 0},
        {"a": {}},
    ),
)
