"""A visit: ask, watch the answer come, stop, ask again, branch, change the model, come back."""

import json
import re

from playwright.sync_api import expect

from tests.browser.driving import Visit
from tests.browser.talking_app import ENDLESS, SENTENCE, SHOWN, TALKER


def test_first_visit_to_first_streamed_word(visit: Visit) -> None:
    page = visit.chat()
    expect(page.locator("#question")).to_be_focused()
    visit.ask("What do bees do?", wait=False)
    expect(page.locator(".turn.assistant .text")).to_contain_text("Bees")
    visit.wait_for_end()
    expect(page.locator(".turn.assistant .text")).to_have_text(SHOWN)
    expect(page.locator(".turn.assistant .text strong")).to_have_text("honey")
    figures = page.locator(".figures").inner_text()
    assert re.search(r"[\d.]+ tok/s", figures)
    assert re.search(r"\d+ ms", figures)
    # a byte is a token of this model
    assert f"{len(SENTENCE) + 1} tokens" in figures
    expect(page.locator(".room")).to_have_text(re.compile(r"^8,1\d\d of 8,192 tokens left$"))


def test_a_chat_is_there_again_after_a_reload(visit: Visit) -> None:
    page = visit.chat()
    visit.ask("What do bees do?")
    page.reload()
    expect(page.locator(".turn.user .said")).to_have_text("What do bees do?")
    expect(page.locator(".turn.assistant .text")).to_have_text(SHOWN)
    page.get_by_role("button", name="New chat", exact=True).click()
    expect(page.locator(".turn")).to_have_count(0)
    page.locator("#chats .open").click()
    expect(page.locator(".turn.assistant .text")).to_have_text(SHOWN)


def test_stop_ends_the_answer_and_the_generation(visit: Visit) -> None:
    page = visit.chat()
    page.select_option("#model", ENDLESS)
    visit.ask("Talk", wait=False)
    expect(page.locator(".turn.assistant .text")).to_contain_text("Bees")
    page.get_by_role("button", name="Stop (Esc)").click()
    visit.wait_for_end()
    expect(page.locator(".turn.assistant")).to_contain_text("Stopped.")
    text = page.locator(".turn.assistant .text").inner_text()
    page.wait_for_timeout(100)
    assert page.locator(".turn.assistant .text").inner_text() == text
    running = page.evaluate("fetch('health').then(answer => answer.json())")
    assert running["status"] == "healthy"


def test_answers_and_questions_branch_and_every_branch_stays(visit: Visit) -> None:
    page = visit.chat()
    visit.fake("first", "second", "third")
    visit.ask("one")
    page.get_by_role("button", name="Answer again in a new branch").click()
    visit.wait_for_end()
    answer = page.locator(".turn.assistant")
    expect(answer.locator(".text")).to_have_text("second")
    expect(answer.locator(".branches")).to_contain_text("2 of 2")
    answer.get_by_role("button", name="Previous answer").click()
    expect(answer.locator(".text")).to_have_text("first")
    page.get_by_role("button", name="Edit the question in a new branch").click()
    page.get_by_label("Edited question").fill("other")
    page.keyboard.press("Enter")
    visit.wait_for_end()
    expect(page.locator(".said")).to_have_text("other")
    expect(answer.locator(".text")).to_have_text("third")
    page.get_by_role("button", name="Previous question").click()
    expect(page.locator(".said")).to_have_text("one")
    asked = page.evaluate("window.asked.map(body => body.messages.map(m => m.content))")
    assert asked == [["one"], ["one"], ["other"]]


def test_another_model_is_loaded_and_answers(visit: Visit) -> None:
    page = visit.chat()
    page.evaluate(
        "id => fetch('models/unload', {method: 'POST', body: JSON.stringify({model_id: id}),"
        " headers: {'Content-Type': 'application/json'}})",
        ENDLESS,
    )
    page.reload()
    option = page.locator(f"#model option[value='{ENDLESS}']")
    expect(option).to_have_text("endless (not loaded)")
    page.select_option("#model", ENDLESS)
    expect(option).to_have_text("endless")
    visit.ask("Talk", wait=False)
    expect(page.locator(".turn.assistant .text")).to_contain_text("wax. Bees")
    page.keyboard.press("Escape")
    visit.wait_for_end()
    page.select_option("#model", TALKER)
    page.reload()
    expect(page.locator("#model")).to_have_value(TALKER)


def test_answers_side_by_side_and_the_chat_goes_on_from_the_chosen_one(visit: Visit) -> None:
    page = visit.chat()
    page.keyboard.press("Control+,")
    page.get_by_label("Answers side by side").fill("3")
    page.get_by_role("button", name="Done").click()
    visit.fake([[{"content": "red"}], [{"content": "green"}], [{"content": "blue"}]])
    visit.ask("A colour?")
    answers = page.locator(".beside .turn")
    assert answers.locator(".text").all_inner_texts() == ["red", "green", "blue"]
    boxes = [answer.bounding_box() for answer in answers.all()]
    assert len({box and box["y"] for box in boxes}) == 1, "side by side"
    answers.nth(1).get_by_role("button", name="Go on from this").click()
    visit.fake("yes")
    page.keyboard.press("Control+,")
    page.get_by_label("Answers side by side").fill("1")
    page.keyboard.press("Tab")
    page.get_by_role("button", name="Done").click()
    visit.ask("Sure?")
    [body] = page.evaluate("window.asked")
    assert [message["content"] for message in body["messages"]] == ["A colour?", "green", "Sure?"]


def test_real_answers_side_by_side_are_all_whole(visit: Visit) -> None:
    page = visit.chat()
    page.keyboard.press("Control+,")
    page.get_by_label("Answers side by side").fill("2")
    page.get_by_role("button", name="Done").click()
    visit.ask("Bees?")
    expect(page.locator(".beside .text")).to_have_text([SHOWN, SHOWN])


def test_a_chat_is_exported_as_markdown_and_as_json(visit: Visit) -> None:
    page = visit.chat()
    visit.fake("<think>Hmm.</think>\n\nIt is **so**.")
    visit.ask("Is it?")
    page.get_by_role("button", name="More of Is it?").click()
    with page.expect_download() as saved:
        page.get_by_role("button", name="Markdown").click()
    assert saved.value.suggested_filename == "Is-it.md"
    text = saved.value.path().read_text()
    assert text == (
        f"# Is it?\n\n## User\n\nIs it?\n\n## Assistant ({TALKER})\n\n> Hmm.\n\nIt is **so**.\n"
    )
    with page.expect_download() as saved:
        page.get_by_role("button", name="JSON").click()
    chat = json.loads(saved.value.path().read_text())
    assert [node["role"] for node in chat["nodes"].values()] == ["user", "assistant"]


def test_chats_are_renamed_and_deleted(visit: Visit) -> None:
    page = visit.chat()
    visit.fake("yes")
    visit.ask("Is it?")
    page.get_by_role("button", name="More of Is it?").click()
    page.get_by_role("button", name="Rename").click()
    page.get_by_label("New title").fill("Something else")
    page.keyboard.press("Enter")
    expect(page.locator("#chats .open")).to_have_text("Something else")
    page.get_by_role("button", name="More of Something else").click()
    page.get_by_role("button", name="Delete", exact=True).click()
    page.get_by_role("alert").get_by_role("button", name="Delete").click()
    expect(page.locator("#chats .open")).to_have_count(0)
    page.reload()
    expect(page.locator(".facts")).to_be_visible()
    expect(page.locator("#chats .open")).to_have_count(0)


def test_a_failure_is_told_in_the_servers_words(visit: Visit) -> None:
    page = visit.chat()
    page.keyboard.press("Control+,")
    page.get_by_label("JSON schema of answers").fill('{"type": "nothing"}')
    page.get_by_role("button", name="Done").click()
    visit.ask("Is it?")
    expect(page.locator(".turn.assistant .notice.bad")).to_contain_text("nothing")


def test_the_page_works_below_a_path_that_a_proxy_adds(visit: Visit) -> None:
    page = visit.page
    base = f"{visit.url}/models-of/ada/"
    page.route(
        f"{base}**",
        lambda route: route.fulfill(
            response=route.fetch(url=route.request.url.replace(base, f"{visit.url}/"))
        ),
    )
    page.goto(base)
    expect(page.locator(".facts")).to_contain_text(f"{base}v1")
    visit.ask("What do bees do?")
    expect(page.locator(".turn.assistant .text")).to_have_text(SHOWN)
