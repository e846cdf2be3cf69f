import pytest

from app.generation.schema.patterns import MAX_GROUPS, PatternError, translate
from tests.generation.test_structured import compiled, takes


def matches(pattern: str, text: str) -> bool:
    constraint = compiled({"type": "string", "pattern": pattern})
    escaped = text.replace("\n", r"\n").replace("\r", r"\r").replace("\t", r"\t")
    return takes(constraint, f'"{escaped}"')


@pytest.mark.parametrize(
    ("pattern", "yes", "no"),
    [
        ("^.$", ["a", "é", "\x85"], ["\n", "\r", "\u2028", "\u2029"]),
        ("(?s)^.$", ["\n", "\u2028"], []),
        ("(?s:^.$)|b", ["\n", "xb"], ["xx"]),
        (r"^\s$", [" ", "\t", "\u00a0", "\ufeff", "\u2028"], ["\x85", "a"]),
        (r"^\S$", ["\x85", "a"], [" ", "\ufeff"]),
        (r"^\d$", ["7"], ["٣"]),
        (r"^\w$", ["a", "_"], ["é"]),
        (r"^[^\W]$", ["a", "_"], ["é", "-"]),
        (r"^[\w-.]$", ["a", "-", "."], [","]),
        (r"^[\d-x]$", ["7", "-", "x"], ["w"]),
        (r"^[a-c\]-]$", ["b", "]", "-"], ["d"]),
        (r"^[\b]$", ["\\b"], ["b"]),
        ("^[[]$", ["["], ["]"]),
        ("^[]$|x", ["x"], [""]),
        ("^[^]$", ["\n", "a"], [""]),
        ("^]}$", ["]}"], ["}]"]),
        (r"^\-\_\@\<$", ["-_@<"], [""]),
        ("^[a&&b]$", ["a", "&"], ["&&"]),
        ("^[a~~b]$", ["~"], ["~~"]),
        (r"^\u0041\x42\u{43}$", ["ABC"], []),
        (r"^\ud83e\udd8a$", ["🦊"], []),
        (r"^\cJ\t$", ["\n\t"], ["J"]),
        (r"^\p{Script=Greek}\P{L}$", ["α7"], ["a7", "αb"]),
        ("^(?<stop>a)b$", ["ab"], ["a"]),
        ("^(?P<year>a)$", ["a"], []),
        ("(?i)^ab$", ["aB"], ["a"]),
        ("^(?i:a)b$", ["Ab"], ["AB"]),
        ("^(?i)a(?-i)b$", ["Ab"], ["AB"]),
        ("^a??b*?$", ["", "abb"], ["ba"]),
        ("a|^b|c$", ["xax", "bx", "xc"], ["xb", "cx"]),
        (r"^a/b\/$", ["a/b/"], []),
        ("^(?:)$", [""], ["a"]),
    ],
)
def test_a_pattern_means_what_ecma_262_says(pattern, yes, no):
    for text in yes:
        assert matches(pattern, text), text
    for text in no:
        assert not matches(pattern, text), text


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("a[[:alpha:]]", "no POSIX class, which ECMA-262 doesn't have (at character 3)"),
        (r"\Aa", r"an escape that ECMA-262 has, not `\A` (at character 1)"),
        (r"a\Z", r"not `\Z`"),
        (r"\pL", r"not `\p`"),
        (r"\h", r"not `\h`"),
        ("\\", "an escape"),
        ("(?x)a b", "no flags but i and s"),
        ("(?m)^a", "no flags but i and s"),
        ("(?)a", "a group that ECMA-262 has"),
        ("(?>a)", "a group that ECMA-262 has"),
        ("(?#a)", "a group that ECMA-262 has"),
        ("(?<!a)b", "no look-around"),
        (r"\bfoo\b", "no look-around for a word's boundary"),
        (r"(a)\1", "no back-reference"),
        (r"(?<n>a)\k<n>", "no back-reference"),
        ("a{,3}", r"or `\{` (at character 2)"),
        ("^*", "nothing that repeats an anchor"),
        ("(?i)*", "nothing that repeats an anchor or flags"),
        ("+", "something before `+`"),
        ("a++", "no quantifier after another"),
        ("a{2}{3}", "no quantifier after another"),
        ("a{3,2}", "not above its second"),
        ("a{9999999999}", "at most 9 digits"),
        ("[b-a]", "not above its last"),
        ("[a[b]c]", r"`\]`, as a class before it holds a `[`"),
        (r"[\w-.]\p{L}", r"`\-`"),
        (r"\p{L}]", r"`\]`"),
        (r"(?i)\p{Lu}", "no property where case is ignored"),
        (r"\ud83e", "no lone surrogate"),
        (r"\u{110000}", "beyond 10FFFF"),
        ("(a", "a `)` for every `(`"),
        ("a)", "no `)` without its `(`"),
        ("[a", "a `]` for every `[`"),
        ("(" * 20_000, f"at most {MAX_GROUPS} groups"),
    ],
)
def test_a_pattern_that_dialects_read_otherwise_or_none_enforces_is_refused(pattern, message):
    with pytest.raises(PatternError) as refused:
        translate(pattern)
    assert message in str(refused.value)


@pytest.mark.parametrize(
    ("pattern", "least"),
    [
        ("", 0),
        ("^$", 0),
        ("^abc$", 3),
        ("a|bc|d{3}", 1),
        ("(ab){2,}c?[de]+", 5),
        ("^a{100000}$", 100_000),
        ("(?:a{3}|b){1000}", 1000),
    ],
)
def test_the_length_of_the_shortest_match_is_known(pattern, least):
    assert translate(pattern).least == least


def test_groups_inside_each_other_up_to_the_limit_are_translated():
    translate("(" * MAX_GROUPS + ")" * MAX_GROUPS)


def test_a_pattern_of_nothing_that_json_can_write_is_seen_to_be_empty():
    from app.errors import InvalidParameter

    for pattern in ("^\x01$", r"^\u0001+$", r"^[\0-\x07\v]$", r"^\x7f$"):
        with pytest.raises(InvalidParameter, match=r"no string matches|nothing satisfies"):
            compiled({"type": "string", "pattern": pattern})
