"""Thinking is told from the answer however it comes in pieces, and ends when its budget does."""

import numpy as np
import pytest

from app.catalog.chat_template import ChatTemplate
from app.catalog.thinking_constraint import ThinkingConstraint
from app.contract.conversation import ChatMessage
from app.contract.formats import JsonObject
from app.contract.generation import Reasoning
from app.contract.whole import collect
from app.generation.thinking import (
    FORMATS,
    Thinking,
    ThinkingSplitter,
    planned,
    template_options,
    thinking_format,
)
from tests.fakes import BYTES, CHATML, FakeService, byte_ids
from tests.generation.asking import asks, says

THINK = FORMATS[0]
TEMPLATE = ChatTemplate(
    "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' }}"
    "{% if m.reasoning_content %}<think>{{ m.reasoning_content }}</think>{% endif %}"
    "{{ m.content + '<|im_end|>\n' }}{% endfor %}"
    "{{ '<|im_start|>assistant\n' }}"
    "{% if enable_thinking is defined and not enable_thinking %}<think>\n\n</think>\n\n{% endif %}"
    "{% if always %}<think>\n{% endif %}"
)
TEXT = "<think>\nTwo and </thin two.\n\n</think>\n\nIt is 4."


def split(text: str, sizes: list[int], *, begun: bool = False) -> tuple[str, str, int]:
    splitter = ThinkingSplitter(Thinking(format=THINK, begun=begun, budget=None))
    thought, answer, at = "", "", 0
    for size in [*sizes, len(text)]:
        more = splitter.feed(text[at : at + size])
        thought, answer, at = thought + more[0], answer + more[1], at + size
    more = splitter.flush()
    return thought + more[0], answer + more[1], splitter.consumed


@pytest.mark.parametrize(
    ("text", "begun", "thought", "answer"),
    [
        (TEXT, False, "Two and </thin two.", "It is 4."),
        (TEXT.removeprefix("<think>"), True, "Two and </thin two.", "It is 4."),
        ("\n<think></think>4", False, "", "4"),
        ("No thought. <think>", False, "", "No thought. <think>"),
        ("  <thinner>", False, "", "  <thinner>"),
        ("<think>cut off ", False, "cut off", ""),
        ("<thi", False, "", "<thi"),
        ("a</think>b</think>", True, "a", "b</think>"),
    ],
)
def test_a_text_is_split_alike_however_it_is_cut(text, begun, thought, answer):
    for size in (1, 2, 3, 7, 100):
        found = split(text, [size] * (len(text) // size + 1), begun=begun)
        assert found == (thought, answer, len(text) - len(answer)), size


@pytest.mark.parametrize("form", FORMATS, ids=lambda form: form.opening)
def test_a_template_names_its_format(form):
    source = f"{{# {form.opening} {form.closing} #}}x"
    assert thinking_format(ChatTemplate(source)) == form
    assert thinking_format(ChatTemplate(CHATML)) is None


def test_the_prompt_and_the_effort_say_how_an_answer_may_think():
    assert planned(THINK, "assistant\n<think>\n\n</think>\n\n", Reasoning()) is None
    assert planned(THINK, "assistant\n<think>\n", Reasoning()) == Thinking(
        format=THINK, begun=True, budget=None
    )
    budgets = {
        effort: planned(THINK, "x", Reasoning(effort)).budget
        for effort in (None, "none", "minimal", "low", "medium", "high", "max")
    }
    assert list(budgets.values()) == [None, 0, 128, 1024, 4096, None, None]
    assert planned(THINK, "x", Reasoning("low", 7)).budget == 7
    assert template_options(Reasoning("none")) == {"enable_thinking": False, "thinking": False}
    assert template_options(Reasoning("low"))["reasoning_effort"] == "low"
    assert template_options(Reasoning()) == {}


def held(constraint: ThinkingConstraint) -> set[int]:
    vocab = BYTES.get_vocab_size()
    mask = np.zeros(-(-vocab // 32), np.int32)
    constraint.fill_mask(mask)
    bits = np.unpackbits(mask.view(np.uint8), count=vocab, bitorder="little")
    return set(np.flatnonzero(bits).tolist())


class OnlyX:
    """An answer that is the letter x, again and again."""

    ended = False

    def fill_mask(self, mask) -> None:
        mask[:] = 0
        [x] = byte_ids("x")
        mask[x // 32] |= np.int32(1 << x % 32)

    def accept(self, token_id: int) -> None:
        assert [token_id] == byte_ids("x")


@pytest.mark.parametrize("begun", [True, False])
@pytest.mark.parametrize("budget", [0, 1, 5])
def test_a_budget_that_is_spent_closes_the_thought(begun, budget):
    constraint = ThinkingConstraint(
        BYTES, "<think>", "</think>", begun=begun, budget=budget, answer=None
    )
    said = "" if begun else "<think>"
    for token_id in byte_ids(said + "hmmmmmm"[:budget]):
        assert len(held(constraint)) == BYTES.get_vocab_size(), "free until it is spent"
        constraint.accept(token_id)
    for token_id in byte_ids("</think>"):
        assert held(constraint) == {token_id}
        constraint.accept(token_id)
    assert len(held(constraint)) == BYTES.get_vocab_size()
    assert not constraint.ended


def test_an_answer_is_held_to_its_form_after_the_thought_alone():
    constraint = ThinkingConstraint(
        BYTES, "<think>", "</think>", begun=True, budget=None, answer=OnlyX()
    )
    for token_id in byte_ids("ab</think>"):
        assert len(held(constraint)) == BYTES.get_vocab_size()
        constraint.accept(token_id)
    assert held(constraint) == set(byte_ids("x"))
    constraint.accept(byte_ids("x")[0])


def test_an_opening_of_its_own_token_may_come_before_the_form():
    tokenizer = BYTES.from_str(BYTES.to_str())
    tokenizer.add_tokens(["<think>", "</think>"])
    opening = tokenizer.token_to_id("<think>")
    constraint = ThinkingConstraint(
        tokenizer, "<think>", "</think>", begun=False, budget=2, answer=OnlyX()
    )
    mask = np.zeros(-(-tokenizer.get_vocab_size() // 32), np.int32)
    constraint.fill_mask(mask)
    bits = np.unpackbits(mask.view(np.uint8), bitorder="little")
    assert set(np.flatnonzero(bits).tolist()) == {*byte_ids("x"), opening}
    for token_id in (opening, *byte_ids("hm"), tokenizer.token_to_id("</think>")):
        constraint.accept(token_id)
    assert held(constraint) == set(byte_ids("x"))


async def test_a_thought_is_no_text():
    """Stop strings, logprobs and usage: of the answer alone, or told apart."""
    service = FakeService(TEXT, "<|im_end|>", chat_template=TEMPLATE)
    request = asks(prompt=None, messages=says("2 + 2?"), stop=("two", " 4"))
    whole = await collect(await service.start(request))
    assert (whole.reasoning, whole.text) == ("Two and </thin two.", "It is")
    assert whole.finished.usage.reasoning_tokens == len("<think>\nTwo and </thin two.\n\n</think>")


async def test_a_client_can_switch_thinking_off_and_send_thoughts_back():
    service = FakeService("4", chat_template=TEMPLATE)
    turns = [*says("2 + 2?"), ChatMessage.of("assistant", "4"), *says("And 3?")]
    turns[1] = ChatMessage("assistant", turns[1].content, reasoning="Hm.")
    request = asks(prompt=None, messages=turns, reasoning=Reasoning("none"))
    generation = await service.start(request)
    assert not generation.thinks
    await collect(generation)
    [prompt] = service.prompts()
    assert prompt.endswith("assistant\n<think>\n\n</think>\n\n")
    assert "<think>Hm.</think>4" in prompt


async def test_an_answer_in_json_is_held_to_it_after_a_thought_that_the_template_begins():
    service = FakeService("hm</think>{}", chat_template=TEMPLATE)
    request = asks(
        prompt=None,
        messages=says("2 + 2?"),
        response_format=JsonObject(),
        template_options={"always": True},
        reasoning=Reasoning(budget=2),
    )
    whole = await collect(await service.start(request))
    assert (whole.reasoning, whole.text) == ("hm", "{}")
    assert isinstance(service.engine.submitted[0].constraint, ThinkingConstraint)
