import os
import threading
from collections.abc import Iterator

import pytest

from app.catalog.chat_template import MAX_SOURCE, ChatTemplate
from app.catalog.render_template import CACHED
from app.catalog.template_process import TemplateProcess
from app.contract.conversation import ChatMessage, Tool, ToolCall
from app.errors import InvalidParameter, ModelBroken
from tests.catalog.test_chat_template import TEMPLATES, TOKENS, TOOL_TEMPLATES, messages

HI = messages(("user", "Hi"))


@pytest.fixture(scope="module")
def hasty() -> Iterator[TemplateProcess]:
    """As a server's, with less time."""
    process = TemplateProcess(cpu_s=0.3)
    yield process
    process.close()


def loop(times: int, body: str) -> str:
    return f"{{% for i in range({times}) %}}{body}{{% endfor %}}"


def nested(first: str, next_: str, end: str) -> str:
    return f"{{% set ns = namespace(x={first}) %}}{loop(60, next_)}{end}"


TWICE = "{% macro m(n) %}{% if n %}{{ m(n - 1) }}{{ m(n - 1) }}{% endif %}{% endmacro %}"
SHARED = "{% set ns.x = [ns.x, ns.x] %}"


@pytest.mark.parametrize(
    "source",
    [
        loop(99999, loop(99999, "")),
        TWICE + "{{ m(60) }}",
        "{{ 'a' * 10 ** 10 }}",
        "{{ (messages[0].role * 10 ** 10) | length }}",
        "{{ [0] * 10 ** 10 }}",
        "{{ (10 ** 10) ** (10 ** 10) }}",
        "{{ ('a\n' * 99999) | indent(99999) }}",
        "{{ 'a' | center(10 ** 10) }}",
        "{{ '%10000000000d' | format(1) }}",
        "{{ '{:>10000000000}'.format(1) }}",
        "{{ messages[0].role.ljust(10 ** 10) }}",
        "{{ messages[0].role.replace('', 'b' * 10 ** 5).replace('', 'b' * 10 ** 6) }}",
        "{{ messages | tojson(indent=10 ** 9) }}",
        "{{ lipsum(n=10 ** 9) }}",
        nested("[1]", SHARED, "{{ ns.x }}"),
        nested("'a'", "{% set ns.x = ns.x ~ ns.x %}", "{{ ns.x }}"),
        nested("[1]", SHARED, "{% set y = ns.x %}") + nested("[1]", SHARED, "{{ ns.x == y }}"),
    ],
)
def test_a_template_that_takes_more_than_it_may_is_a_broken_model(hasty, source):
    with pytest.raises(ModelBroken, match=r"it takes more than|far more than|OverflowError|Memory"):
        ChatTemplate(source, process=hasty).render(HI)
    assert ChatTemplate("{{ messages[0].content }}", process=hasty).render(HI) == "Hi"


def test_a_text_far_longer_than_its_conversation_is_not_taken(hasty):
    with pytest.raises(ModelBroken, match="far more than it was given"):
        ChatTemplate("{{ messages[0].role * 10 ** 6 }}", process=hasty).render(HI)


@pytest.mark.parametrize(
    "source",
    [
        "{% if x %}" * 20_000 + "{% endif %}" * 20_000,
        "{% for x in y %}" * 20_000 + "{% endfor %}" * 20_000,
        "{% for x in y %}" * 60 + "{% endfor %}" * 60,
        "{{ " + "(" * 20_000 + "1" + ")" * 20_000 + " }}",
        "{{ " + "[" * 20_000 + "]" * 20_000 + " }}",
        "{{ " + "not " * 20_000 + "x }}",
        "{{ x" + ".a" * 20_000 + " }}",
        "{{ x" + " + x" * 20_000 + " }}",
        "{{ x" + " | trim" * 20_000 + " }}",
        "x" * (MAX_SOURCE + 1),
    ],
)
def test_a_template_that_is_nested_too_deeply_is_a_broken_model(source):
    with pytest.raises(ModelBroken, match="chat template"):
        ChatTemplate(source)


def test_a_tool_that_is_nested_too_deeply_is_the_clients_to_mend():
    schema: dict = {}
    for _ in range(5000):
        schema = {"items": schema}
    with pytest.raises(InvalidParameter, match="levels") as refused:
        ChatTemplate(TOOL_TEMPLATES["Hermes"]).render(HI, [Tool(name="a", parameters=schema)])
    assert refused.value.field == "tools"


def test_a_template_is_sent_again_to_a_process_that_has_lost_it(hasty):
    template = ChatTemplate(TEMPLATES["SmolLM2"], process=hasty)
    before = template.render(HI)
    for number in range(CACHED):
        ChatTemplate(f"{{{{ {number} }}}}", process=hasty)
    assert template.render(HI) == before, "others have pushed it out"
    hasty.close()
    assert template.render(HI) == before, "the process is a new one"


def test_a_process_that_was_killed_between_two_requests_is_started_again(hasty):
    template = ChatTemplate("{{ messages[0].content }}", process=hasty)
    assert hasty._process is not None
    hasty._process.kill()
    hasty._process.wait()
    assert template.render(HI) == "Hi"


def test_a_long_conversation_is_rendered_with_the_usual_limits(hasty):
    turns = messages(*[(("user", "assistant")[i % 2], "é" * 300) for i in range(1000)])
    for name in ("SmolLM2", "Llama 3", "Gemma"):
        text = ChatTemplate(TEMPLATES[name], process=hasty, **TOKENS).render(turns)
        assert text.count("é" * 300) == 1000


def test_arguments_nested_as_deeply_as_they_are_read_are_written_out():
    arguments = '{"a": ' + "[" * 400 + "]" * 400 + "}"
    turn = ChatMessage.of("assistant", "", (ToolCall("1", "weather", arguments),))
    assert arguments in ChatTemplate(TOOL_TEMPLATES["Hermes"]).render([turn])


def test_integers_of_any_size_reach_the_template():
    tool = Tool(name="a", parameters={"enum": [2**64 + 1, 10**30]})
    text = ChatTemplate("{{ tools | tojson }}").render([], [tool])
    assert str(2**64 + 1) in text
    assert str(10**30) in text


def test_renderings_at_once_are_not_mixed_up(hasty):
    template = ChatTemplate("{{ messages[0].content }}", process=hasty)
    texts: dict[int, set[str]] = {}

    def render(number: int) -> None:
        turns = messages(("user", str(number) * 1000))
        texts[number] = {template.render(turns) for _ in range(20)}

    threads = [threading.Thread(target=render, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert texts == {number: {str(number) * 1000} for number in range(8)}


def test_the_process_sees_no_settings_and_goes_with_its_owner(monkeypatch):
    monkeypatch.setenv("LLMHOST_SECRET_KEY", "secret")
    process = TemplateProcess()
    ChatTemplate("", process=process)
    assert process._process is not None
    pid = process._process.pid
    with open(f"/proc/{pid}/environ", "rb") as environment:  # noqa: PTH123
        assert b"LLMHOST_" not in environment.read()
    del process
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_a_text_that_is_no_unicode_is_a_broken_model():
    with pytest.raises(ModelBroken, match="UnicodeEncodeError"):
        ChatTemplate(r"{{ '\ud800' }}").render([ChatMessage.of("user", "Hi")])
