"""What an answer is made of: Markdown, code, math, thinking, calls, JSON; and what may be asked."""

import json

import msgspec
from playwright.sync_api import expect

from app.contract.sampling import SamplingParams
from app.dialects.openai.chat_schemas import ChatBody
from tests.browser.driving import Visit

SCHEMA = {"type": "object", "properties": {"ok": {"type": "boolean"}}, "required": ["ok"]}
TOOL = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}
SAMPLING = {
    *("temperature", "top_p", "top_k", "min_p", "seed", "n", "stop", "logit_bias", "min_tokens"),
    *("repetition_penalty", "presence_penalty", "frequency_penalty", "max_completion_tokens"),
}


def test_every_parameter_has_the_default_of_the_endpoint(visit: Visit) -> None:
    page = visit.chat()
    told = page.evaluate(
        "async () => { const script = document.querySelector('script[type=module]').src;"
        " return (await import(new URL('../chat/parameters.js', script))).PARAMETERS; }"
    )
    names = {parameter["name"] for parameter in told}
    assert set(ChatBody.__struct_fields__) >= names >= SAMPLING
    body = {"model": "m", "messages": [{"role": "user", "content": "x"}]}
    defaults = msgspec.to_builtins(msgspec.convert(body, ChatBody))
    for parameter in told:
        theirs = defaults[parameter["name"]]
        if theirs is None:  # the model's own, or else off
            theirs = getattr(SamplingParams(), parameter["name"], None)
        assert parameter["initial"] == theirs or (not parameter["initial"] and not theirs)
        assert len(parameter["hint"]) > 20


def test_settings_are_sent_and_kept_with_the_chat(visit: Visit) -> None:
    page = visit.chat()
    page.keyboard.press("Control+,")
    page.get_by_label("System prompt").fill("Be brief.")
    values = {"Temperature": "0.3", "Top k": "40", "Most tokens": "64", "Seed": "7"}
    for label, value in values.items():
        page.get_by_role("spinbutton", name=label, exact=True).fill(value)
    page.get_by_label("Stop at", exact=True).fill("END\nSTOP")
    page.get_by_label("Stop at tokens").fill("1, 2")
    page.get_by_label("Logit bias").fill('{"50": -100}')
    page.get_by_label("Ignore the end").check()
    page.get_by_label("Tools", exact=True).fill(json.dumps([TOOL]))
    page.get_by_label("Calls are").select_option("required")
    page.get_by_label("JSON schema of answers").fill(json.dumps(SCHEMA))
    page.get_by_role("button", name="Done").click()
    visit.fake("{}")
    visit.ask("Is it?")
    [body] = page.evaluate("window.asked")
    assert body.pop("messages") == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Is it?"},
    ]
    assert body.pop("response_format")["json_schema"]["schema"] == SCHEMA
    del body["model"]
    assert body == {
        "temperature": 0.3,
        "top_p": 0.9,
        "top_k": 40,
        "max_completion_tokens": 64,
        "seed": 7,
        "stop": ["END", "STOP"],
        "stop_token_ids": [1, 2],
        "logit_bias": {"50": -100},
        "ignore_eos": True,
        "tools": [TOOL],
        "tool_choice": "required",
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    page.reload()
    expect(page.locator(".under .link")).to_contain_text("Temperature 0.3")
    page.keyboard.press("Control+,")
    expect(page.get_by_label("System prompt")).to_have_value("Be brief.")
    page.get_by_label("Tools", exact=True).fill("[")
    page.keyboard.press("Tab")
    expect(page.locator("dialog [role=alert]")).to_contain_text("Not JSON")


def test_markdown_code_and_math_become_elements(visit: Visit) -> None:
    page = visit.chat()
    visit.fake(
        "# Title\n\n**bold** &amp; *em* costs $5 and $10.\n\n- [x] done\n\n| a | b |\n|--|:-:|\n"
        "| 1 | <br> |\n\n```python\ndef f(): return 1\n```\n\nInline $e^{i\\pi}$ and \\(x\\).\n\n"
        "\\[\n\\frac{1}{2}\n\\]\n\nBroken $\\nosuch{$ here."
    )
    visit.ask("Show")
    text = page.locator(".text")
    expect(text.locator("h2")).to_have_text("Title")
    expect(text.locator("p").first).to_have_text("bold & em costs $5 and $10.")
    expect(text.locator("li.task")).to_have_text("☑ done")
    expect(text.locator("td.center br")).to_have_count(1)
    expect(text.locator("pre code .hljs-keyword").first).to_have_text("def")
    expect(text.locator(".katex")).to_have_count(3)
    expect(text.locator(".display .katex-display")).to_have_count(1)
    expect(text).to_contain_text("Broken $\\nosuch{$ here.")
    assert page.evaluate("document.fonts.ready.then(() => document.fonts.check('16px KaTeX_Main'))")


def test_a_text_that_grew_looks_like_one_that_came_at_once(visit: Visit) -> None:
    page = visit.chat()
    source = (
        "Intro\n\n1. one\n\n   more\n2. two\n\n> quote\nlazy\n\n```js\nlet a;\n\nlet b;\n```\n"
        "text [ref] and\n| a |\n|---|\n| 1 |\n\n    indented\n\nend\r\n\r\n[ref]: https://a.b/c\n"
    )
    long_list = "".join(f"{number}. item **{number}**\n" for number in range(3, 60))
    long_table = "| a | b |\n|:-:|---|\n" + "".join(f"| {n} | `{n}` |\n" for n in range(50))
    source = f"{long_list}\n\n{long_table}\nbetween\n\n{source}"
    same = page.evaluate(
        """async (source) => {
          const script = document.querySelector("script[type=module]").src;
          const { LiveText } = await import(new URL("../text/live.js", script));
          const [grown, whole] = [document.createElement("div"), document.createElement("div")];
          const text = new LiveText(grown);
          for (let end = 1; end < source.length; end++) text.update(source.slice(0, end), false);
          text.update(source, true);
          new LiveText(whole).update(source, true);
          return [grown.isEqualNode(whole), grown.textContent, whole.textContent];
        }""",
        source,
    )
    assert same[0], same[1:]
    assert "[ref]" not in same[2]


def test_thinking_is_folded_away_and_not_sent_back(visit: Visit) -> None:
    page = visit.chat()
    visit.fake("<think>Well, well.</think>\n\nYes.", "Again.")
    visit.ask("Is it?")
    expect(page.locator(".thinking summary")).to_have_text("Thought")
    expect(page.locator(".thought")).to_be_hidden()
    page.locator(".thinking summary").click()
    expect(page.locator(".thought")).to_have_text("Well, well.")
    expect(page.locator(".turn.assistant .text")).to_have_text("Yes.")
    visit.ask("Sure?")
    body = page.evaluate("window.asked[1]")
    assert [message["content"] for message in body["messages"]] == ["Is it?", "Yes.", "Sure?"]


def test_reasoning_in_a_field_of_its_own_is_shown_the_same_way(visit: Visit) -> None:
    page = visit.chat()
    visit.fake(
        [[{"reasoning_content": "Well, "}, {"reasoning_content": "well."}, {"content": "Yes."}]]
    )
    visit.ask("Is it?")
    expect(page.locator(".thought")).to_have_text("Well, well.")
    expect(page.locator(".turn.assistant .text")).to_have_text("Yes.")


def test_tool_calls_are_shown_and_their_results_sent(visit: Visit) -> None:
    page = visit.chat()
    first = {"index": 0, "id": "call_1", "function": {"name": "weather", "arguments": '{"city":'}}
    rest = {"index": 0, "function": {"arguments": ' "Nairobi"}'}}
    visit.fake([[{"tool_calls": [first]}, {"tool_calls": [rest]}]], finish="tool_calls")
    visit.ask("Weather?")
    expect(page.locator(".call code").first).to_have_text("weather")
    expect(page.locator(".call pre")).to_have_text('{\n  "city": "Nairobi"\n}')
    visit.fake("It is sunny.")
    page.get_by_label("Result of weather").fill("sunny")
    page.get_by_role("button", name="Go on with this result").click()
    expect(page.locator(".turn.assistant .text").last).to_have_text("It is sunny.")
    [body] = page.evaluate("window.asked")
    assert body["messages"][1:] == [
        {
            "role": "assistant",
            "content": "",
            "tool_calls": [
                {
                    "id": "call_1",
                    "type": "function",
                    "function": {"name": "weather", "arguments": '{"city": "Nairobi"}'},
                }
            ],
        },
        {"role": "tool", "tool_call_id": "call_1", "content": "sunny"},
    ]
    expect(page.locator(".turn.tool")).to_contain_text("Result of weather")


def test_an_answer_by_a_schema_is_json(visit: Visit) -> None:
    page = visit.chat()
    page.keyboard.press("Control+,")
    page.get_by_label("JSON schema of answers").fill(json.dumps(SCHEMA))
    page.get_by_role("button", name="Done").click()
    visit.fake('{"ok":true}')
    visit.ask("Is it?")
    expect(page.locator(".turn.assistant figcaption")).to_contain_text("JSON by the schema")
    expect(page.locator(".turn.assistant pre")).to_have_text('{\n  "ok": true\n}')


def test_an_answer_is_copied_as_it_was_written(visit: Visit) -> None:
    visit.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page = visit.chat()
    visit.fake("**yes**\n\n```sh\nls -l\n```")
    visit.ask("Is it?")
    page.get_by_role("button", name="Copy the answer").click()
    expect(page.locator("p[role=status]")).to_have_text("Copied")
    assert page.evaluate("navigator.clipboard.readText()") == "**yes**\n\n```sh\nls -l\n```"
    page.get_by_role("button", name="Copy this sh code").click()
    expect(page.locator("figcaption button")).to_have_text("Copied")
    assert page.evaluate("navigator.clipboard.readText()") == "ls -l"


def test_the_theme_is_chosen_and_remembered(visit: Visit) -> None:
    page = visit.chat()

    def background() -> str:
        colour: str = page.evaluate("getComputedStyle(document.body).backgroundColor")
        return colour

    light = background()
    page.emulate_media(color_scheme="dark")
    dark = background()
    assert light != dark
    page.get_by_role("button", name="Theme: the system's").click()
    assert background() == light
    page.reload()
    assert background() == light
