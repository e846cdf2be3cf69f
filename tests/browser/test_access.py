"""For everybody: WCAG 2.2 AA by axe, the keyboard alone, narrow screens, right-to-left text."""

from collections.abc import Callable
from typing import Any

import pytest
from playwright.sync_api import expect

from tests.browser.driving import Visit
from tests.browser.talking_app import SHOWN
from tests.e2e.clients import node_environment
from tests.e2e.server import Server

AXE = "axe-core@4.14.1"
TAGS = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]
ANSWER = """
# A title

Some *words*, a [link](https://example.org), `code`, ~~gone~~ and $a^2 + b^2$.

```python
def add(a: int, b: int) -> int:  # a comment
    return a + b + len("text")
```

| planet | radius in km | a long heading that needs its room | and another one |
|---|--:|---|---|
| Mercury | 2,440 | small-and-unbreakable-word-in-a-cell | more |

> quoted

1. one
2. two
   - three

$$\\int_0^1 x^2\\,dx = \\frac{1}{3}$$
"""
CALL = {
    "index": 0,
    "id": "call_1",
    "function": {"name": "weather", "arguments": '{"city": "Nairobi"}'},
}


@pytest.fixture(scope="session")
def axe() -> str:
    return (node_environment("axe", AXE) / "node_modules/axe-core/axe.min.js").read_text()


def check(visit: Visit, axe: str) -> None:
    """No violation, in the light and in the dark."""
    visit.page.evaluate(axe)
    for scheme in ("light", "dark"):
        visit.page.emulate_media(color_scheme=scheme, reduced_motion="reduce")
        found: list[dict[str, Any]] = visit.page.evaluate(
            "tags => axe.run(document, {runOnly: tags}).then(result => result.violations)", TAGS
        )
        told = [
            f"{scheme}: {violation['id']}: {node['html'][:200]} {node['failureSummary']}"
            for violation in found
            for node in violation["nodes"]
        ]
        assert not told, "\n".join(told)


def show_everything(visit: Visit) -> None:
    """A conversation with each kind of thing that there is."""
    visit.fake(f"<think>Let me see.</think>{ANSWER}")
    visit.ask("Show me everything")
    expect(visit.page.locator(".katex")).to_have_count(2)
    expect(visit.page.locator(".hljs-keyword").first).to_be_visible()
    visit.fake([[{"tool_calls": [CALL]}]], finish="tool_calls")
    visit.ask("And the weather?")


def test_axe_finds_something_where_there_is_something(visit: Visit, axe: str) -> None:
    page = visit.chat()
    page.evaluate("document.getElementById('question').previousSibling.remove()")
    page.evaluate("document.getElementById('question').placeholder = ''")
    page.evaluate("document.getElementById('question').removeAttribute('placeholder')")
    with pytest.raises(AssertionError, match="label"):
        check(visit, axe)


def test_the_page_and_a_conversation_have_no_violation(visit: Visit, axe: str) -> None:
    visit.chat()
    check(visit, axe)
    show_everything(visit)
    check(visit, axe)
    visit.page.locator("#chats .button.icon").nth(1).click()
    check(visit, axe)


def test_answers_side_by_side_have_no_violation(visit: Visit, axe: str) -> None:
    page = visit.chat()
    page.keyboard.press("Control+,")
    page.get_by_label("Answers side by side").fill("2")
    check(visit, axe)  # the settings
    page.keyboard.press("Escape")
    visit.fake([[{"content": "red"}], [{"content": "green"}]])
    visit.ask("A colour?")
    check(visit, axe)


def test_dialogs_have_no_violation(visit: Visit, axe: str) -> None:
    page = visit.chat()
    page.locator(".side-foot").get_by_role("button", name="Sign in").click()
    check(visit, axe)
    page.get_by_role("button", name="I have no account yet").click()
    page.get_by_label("Name", exact=True).fill("axel")
    page.get_by_label("Password", exact=True).fill("correct horse")
    page.keyboard.press("Enter")
    page.get_by_role("button", name="axel").click()
    page.get_by_label("Name of a new key").fill("laptop")
    page.get_by_role("button", name="Make a key").click()
    page.get_by_role("button", name="Delete the account…").click()
    expect(page.get_by_role("button", name="Revoke laptop")).to_be_visible()
    check(visit, axe)
    page.keyboard.press("Escape")
    page.get_by_role("button", name="Keys (?)").click()
    check(visit, axe)


def test_everything_on_a_phone_has_no_violation(
    new_visit: Callable[..., Visit], talking: Server, axe: str
) -> None:
    visit = new_visit(talking, viewport={"width": 360, "height": 640}, has_touch=True)
    page = visit.chat()
    show_everything(visit)
    check(visit, axe)
    page.get_by_role("button", name="Show chats").click()
    expect(page.locator("#chats")).to_be_visible()
    check(visit, axe)


def test_nothing_is_wider_than_a_narrow_screen(
    new_visit: Callable[..., Visit], talking: Server
) -> None:
    visit = new_visit(talking, viewport={"width": 360, "height": 640})
    page = visit.chat()

    def fits(what: str) -> None:
        wide = page.evaluate("document.scrollingElement.scrollWidth")
        assert wide <= 360, f"{what}: {wide} pixels"
        outside = page.evaluate(
            "[...document.querySelectorAll('button, input, select, textarea')]"
            ".filter((e) => e.checkVisibility({visibilityProperty: true}))"
            ".filter((e) => !e.closest('.sr-only'))"
            ".filter((e) => { const box = e.getBoundingClientRect();"
            "  return box.width && (box.left < -1 || box.right > 361); })"
            ".map((e) => e.outerHTML.slice(0, 120))"
        )
        assert not outside, what

    fits("the first page")
    show_everything(visit)
    fits("a conversation")
    page.keyboard.press("Control+,")
    fits("the settings")
    page.get_by_label("Answers side by side").fill("2")
    page.keyboard.press("Escape")
    visit.fake([[{"content": "x" * 500}], [{"content": f"`{'y' * 500}`"}]])
    visit.ask("z" * 500)
    fits("long words")
    page.get_by_role("button", name="Show chats").click()
    fits("the chats")
    page.locator(".side-foot").get_by_role("button", name="Sign in").click()
    fits("the sign-in")


def test_the_keyboard_alone_is_enough(visit: Visit) -> None:
    page = visit.chat()
    press = page.keyboard.press

    def go_to(name: str, key: str = "Tab") -> None:
        """Tab until something of this name has the focus."""
        for _ in range(40):
            press(key)
            focused = page.evaluate(
                "(document.activeElement.ariaLabel ?? document.activeElement.textContent).trim()"
            )
            if focused.startswith(name):
                return
        raise AssertionError(f"Tab does not reach {name}")

    expect(page.locator("#question")).to_be_focused()
    page.keyboard.type("What do bees do?")
    press("Enter")
    expect(page.locator(".turn.assistant .text")).to_have_text(SHOWN)
    visit.wait_for_end()
    expect(page.locator("#question")).to_be_focused()
    go_to("Skip to the question", "Shift+Tab")  # the first of all
    press("Enter")
    expect(page.locator("#question")).to_be_focused()
    page.keyboard.type("line one")
    press("Shift+Enter")
    page.keyboard.type("line two")
    press("Enter")
    expect(page.locator(".said").last).to_have_text("line one\nline two")
    visit.wait_for_end()
    page.evaluate("document.querySelector('.turn .tools button').focus()")
    go_to("Edit the question")
    press("Enter")
    expect(page.get_by_label("Edited question")).to_be_focused()
    press("Escape")
    expect(page.locator("textarea")).to_have_count(1)
    press("Control+Shift+o")
    expect(page.locator(".turn")).to_have_count(0)
    expect(page.locator("#question")).to_be_focused()
    press("Control+,")
    expect(page.locator("dialog")).to_be_visible()
    go_to("Done")
    expect(page.get_by_role("button", name="Done", exact=True)).to_be_focused()
    press("Enter")
    expect(page.locator("dialog")).to_have_count(0)
    page.evaluate("document.activeElement.blur()")
    press("?")
    expect(page.locator("dialog")).to_contain_text("New chat")
    press("Escape")
    expect(page.locator("dialog")).to_have_count(0)
    press("/")
    expect(page.locator("#question")).to_be_focused()


def test_who_cannot_see_is_told_that_an_answer_began_and_what_it_is(visit: Visit) -> None:
    page = visit.chat()
    status = page.locator("p[role=status]")
    visit.fake([[{"content": "one "}] * 20], held=True)
    visit.ask("Count", wait=False)
    expect(status).to_have_text("Answering")
    expect(page.locator(".turn.assistant")).to_have_attribute("aria-busy", "true")
    visit.let_go()
    visit.wait_for_end()
    expect(status).to_contain_text("Answer finished. one one")


def test_right_to_left_text_runs_from_the_right(visit: Visit) -> None:
    page = visit.chat()
    visit.fake("# عنوان\n\nمرحبا بالعالم\n\n- واحد\n\nEnglish\n\n```python\nx = 1\n```")
    visit.ask("قل مرحبا")
    expect(page.locator(".text pre")).to_be_visible()
    directions = page.evaluate(
        "['.said', ...['h2', 'p', 'ul', 'li', 'p:last-of-type', 'pre'].map((e) => `.text ${e}`)]"
        ".map((name) => getComputedStyle(document.querySelector(name)).direction)"
    )
    assert directions == ["rtl"] * 5 + ["ltr"] * 2
