"""Nothing that a model says runs, becomes an element of its own, or is fetched."""

from typing import Any

import pytest
from playwright.sync_api import expect

from tests.browser.driving import Visit
from tests.browser.payloads import PAYLOADS

# fmt: off
ELEMENTS = {
    "a", "annotation", "blockquote", "br", "button", "code", "del", "div", "em", "figcaption",
    "figure", "h2", "h3", "h4", "h5", "h6", "hr", "li", "ol", "p", "pre", "span",
    "strong", "table", "tbody", "td", "th", "thead", "tr", "ul",
    "math", "menclose", "mi", "mn", "mo", "mrow", "mspace", "mstyle", "mtext", "semantics",
}
# fmt: on
"""What an answer may consist of; `math` and what is in it are KaTeX's."""
LOOK = """
(scope) => [...document.querySelectorAll(scope)].flatMap((root) => [...root.querySelectorAll("*")])
  .map((element) => ({
    name: element.localName,
    handlers: element.getAttributeNames().filter((name) => name.startsWith("on")),
    addresses: ["href", "src", "xlink:href", "action", "formaction", "data", "srcdoc"]
      .map((name) => element.getAttribute(name)).filter((value) => value !== null),
  }))
"""
WATCH = "window.ran = () => { window.hasRun = true; }; window.hasRun = false"


def look(visit: Visit, scope: str) -> None:
    """Every element below some is one that an answer may have, and runs nothing."""
    found = visit.page.evaluate(LOOK, scope)
    assert found
    for element in found:
        assert element["name"] in ELEMENTS, element
        assert not element["handlers"], element
        for address in element["addresses"]:
            assert address.startswith(("http:", "https:", "mailto:")), element
    assert visit.page.evaluate("window.hasRun") is False


def test_there_are_a_hundred_and_many_run_on_a_page_that_trusts_them(browser: Any) -> None:
    assert len(set(PAYLOADS)) == len(PAYLOADS) == 100
    context = browser.new_context(offline=True)
    page = context.new_page()
    page.set_content("<body></body>")
    page.evaluate("window.count = 0; window.ran = () => { window.count += 1; }")
    for payload in PAYLOADS:
        page.evaluate(
            "html => { const div = document.createElement('div');"
            " document.body.append(div); div.innerHTML = html; }",
            payload,
        )
    page.wait_for_function("window.count >= 20")
    context.close()


def test_none_runs_out_of_an_answer(visit: Visit) -> None:
    page = visit.chat()
    page.evaluate(WATCH)
    groups = [PAYLOADS[start : start + 20] for start in range(0, len(PAYLOADS), 20)]
    visit.fake(*("\n\n".join(group) for group in groups))
    for number, _ in enumerate(groups):
        visit.ask(f"question {number}")
    expect(page.locator(".katex").first).to_be_attached()
    look(visit, ".turn.assistant .text")
    for link in page.locator(".turn.assistant .text a").all():
        assert link.get_attribute("rel") == "noopener noreferrer nofollow"


def test_none_runs_while_its_text_grows(visit: Visit) -> None:
    """Each alone, character by character: half a tag is another text than a whole one."""
    page = visit.chat()
    page.evaluate(WATCH)
    page.evaluate(
        """async (payloads) => {
          const script = document.querySelector("script[type=module]").src;
          const { LiveText } = await import(new URL("../text/live.js", script));
          for (const payload of payloads) {
            const element = document.createElement("div");
            element.className = "text grown";
            document.body.append(element);
            const text = new LiveText(element);
            for (let end = 1; end <= payload.length; end++) {
              text.update(payload.slice(0, end), false);
            }
            text.update(payload, true);
          }
        }""",
        PAYLOADS,
    )
    assert page.locator(".grown").count() == len(PAYLOADS)
    look(visit, ".grown")


def test_none_runs_out_of_thinking_calls_titles_and_errors(visit: Visit) -> None:
    page = visit.chat()
    page.evaluate(WATCH)
    everything = " ".join(PAYLOADS[:70])
    call = {"index": 0, "id": everything, "function": {"name": everything, "arguments": everything}}
    visit.fake([[{"reasoning_content": everything}, {"tool_calls": [call]}]], finish="tool_calls")
    visit.ask(everything)
    expect(page.locator(".call")).to_have_count(1)
    assert page.evaluate("window.hasRun") is False
    assert page.locator(".turn :is(img, svg[onload], iframe, object, script)").count() == 0


def test_a_picture_is_a_link_and_nothing_is_fetched_for_an_answer(visit: Visit) -> None:
    page = visit.chat()
    asked: list[str] = []
    visit.fake("![a cat](http://127.0.0.1:9/cat.png?secret) and ![](https://example.org/b.png)")
    page.on("request", lambda request: asked.append(request.url))
    visit.ask("Show me")
    expect(page.locator(".text a").first).to_have_text("[image: a cat]")
    assert not [url for url in asked if not url.startswith(visit.url)]


@pytest.mark.parametrize(
    "script",
    [
        "document.body.innerHTML = '<b>x</b>'",
        "document.createElement('script').src = 'x.js'",
        "setTimeout('1', 0)",
        "new DOMParser().parseFromString('<b>x</b>', 'text/html')",
    ],
)
def test_the_policy_forbids_what_could_make_a_text_a_page(visit: Visit, script: str) -> None:
    page = visit.chat()
    with pytest.raises(Exception, match=r"TrustedHTML|TrustedScript"):
        page.evaluate(f"() => {{ {script} }}")
    visit.problems.clear()  # the browser told of it
