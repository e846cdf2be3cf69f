"""What people do to a chat page that no plan foresaw: two tabs, reloads, deleting, signing out."""

import httpx
from playwright.sync_api import Page, expect

from tests.browser.driving import Visit
from tests.browser.talking_app import ENDLESS, SHOWN, TALKER

LONG = "An answer that takes its time. "


def slowly(visit: Visit, pieces: int = 400) -> None:
    """Have the next answer come over some seconds."""
    visit.fake([[{"content": LONG}] * pieces], every=20)


def titles(page: Page) -> list[str]:
    return page.locator(".chats .open").all_inner_texts()


def test_a_chat_deleted_while_it_is_written_stays_deleted(visit: Visit) -> None:
    page = visit.chat()
    slowly(visit)
    visit.ask("Gone soon", wait=False)
    expect(page.locator(".turn.assistant")).to_contain_text("takes its time")
    page.get_by_role("button", name="New chat", exact=True).click()
    page.get_by_role("button", name="More of Gone soon").click()
    page.get_by_role("button", name="Delete", exact=True).click()
    page.get_by_role("button", name="Delete", exact=True).click()
    expect(page.get_by_text("No chats yet.")).to_be_visible()
    page.wait_for_timeout(4000)  # what is written is kept every 3 s
    page.reload()
    expect(page.locator(".facts")).to_be_visible()
    assert titles(page) == []


def test_the_shown_chat_deleted_while_it_is_written_stays_deleted(visit: Visit) -> None:
    page = visit.chat()
    slowly(visit)
    visit.ask("Gone soon", wait=False)
    expect(page.locator(".turn.assistant")).to_contain_text("takes its time")
    page.get_by_role("button", name="More of Gone soon").click()
    page.get_by_role("button", name="Delete", exact=True).click()
    page.get_by_role("button", name="Delete", exact=True).click()
    page.wait_for_timeout(4000)
    page.reload()
    expect(page.locator(".facts")).to_be_visible()
    assert titles(page) == []


def test_what_two_tabs_said_in_one_chat_is_all_kept(visit: Visit) -> None:
    page = visit.chat()
    visit.ask("First")
    other = visit.context.new_page()
    visit.watch(other)
    other.goto(page.url)
    expect(other.locator(".turn.user")).to_have_count(1)
    visit.ask("From the one tab")
    other.fill("#question", "From the other tab")
    other.keyboard.press("Enter")
    expect(other.locator(".turn.assistant")).to_have_count(2)
    expect(other.locator(".turn.assistant[aria-busy=true]")).to_have_count(0)
    other.wait_for_timeout(3000)
    other.reload()
    expect(other.locator(".turn.user .said").last).to_have_text("From the other tab")
    expect(other.get_by_role("group", name="Branches of this question")).to_contain_text("2 of 2")
    other.get_by_role("button", name="Previous question").click()
    expect(other.locator(".turn.user .said").last).to_have_text("From the one tab")


def register(page: Page, username: str) -> None:
    page.get_by_role("button", name="Sign in").click()
    page.get_by_role("button", name="I have no account yet").click()
    page.fill("#username", username)
    page.fill("#password", "longenoughpassword")
    page.get_by_role("button", name="Create an account").click()
    expect(page.get_by_role("button", name=username)).to_be_visible()


def test_signing_out_while_an_answer_is_written_leaves_nothing_in_the_browser(
    visit: Visit,
) -> None:
    page = visit.chat()
    register(page, "leaver")
    page.locator("header select").select_option(ENDLESS)
    visit.ask("A secret of mine", wait=False)
    expect(page.locator(".turn.assistant .text")).to_contain_text("Bees make")
    page.get_by_role("button", name="leaver").click()
    page.get_by_role("button", name="Sign out").click()
    expect(page.get_by_text("Chats stay in this browser.")).to_be_visible()
    page.wait_for_timeout(1000)
    page.reload()
    expect(page.locator(".facts")).to_be_visible()
    assert titles(page) == []


def test_a_sign_in_that_the_server_ended_is_told(visit: Visit) -> None:
    page = visit.chat()
    register(page, "thrown-out")
    held = page.evaluate("JSON.parse(localStorage.getItem('llmhost.session')).access")
    told = httpx.post(f"{visit.url}/logout", headers={"Authorization": f"Bearer {held}"})
    assert told.is_success
    visit.ask("Who am I?", wait=False)
    expect(page.get_by_text("Your sign-in has ended.")).to_be_visible()
    expect(page.locator(".facts")).to_be_visible()


def test_stop_works_while_the_model_is_loading(visit: Visit) -> None:
    httpx.post(f"{visit.url}/models/unload", json={"model_id": ENDLESS})
    visit.context.add_init_script(f"localStorage.setItem('llmhost.model', '{ENDLESS}')")
    page = visit.chat()
    loads: list[str] = []
    # never answered: a load that takes long
    visit.context.route("**/models/load", lambda route: loads.append(route.request.url))
    visit.ask("Are you there?", wait=False)
    expect(page.locator(".turn.assistant")).to_be_attached()
    page.get_by_role("button", name="Stop (Esc)").click()
    expect(page.get_by_text("Stopped.")).to_be_visible()
    assert loads, "else no load was waited for"


def test_the_skip_link_does_not_lose_the_chats_address(visit: Visit) -> None:
    page = visit.chat()
    visit.ask("Where am I?")
    page.locator(".skip").focus()
    page.keyboard.press("Enter")
    expect(page.locator("#question")).to_be_focused()
    page.reload()
    expect(page.locator(".turn.user")).to_have_text("Where am I?")


def test_a_title_is_not_cut_inside_a_character(visit: Visit) -> None:
    page = visit.chat()
    register(page, "smiler")
    visit.ask("x" * 58 + "🐝" * 5)
    expect(page.locator(".chats .open")).to_have_text("x" * 58 + "🐝…")
    expect(page.locator(".notice.bad")).to_have_count(0)
    page.reload()
    expect(page.locator(".turn.user")).to_contain_text("🐝")


def test_another_chats_address_opens_it(visit: Visit) -> None:
    page = visit.chat()
    visit.ask("The first")
    first = page.url
    page.get_by_role("button", name="New chat", exact=True).click()
    visit.ask("The second")
    page.evaluate("url => { location.href = url; }", first)
    expect(page.locator(".turn.user")).to_have_text("The first")


def test_an_address_that_is_no_chat_shows_a_new_one(visit: Visit) -> None:
    page = visit.open("#%")
    expect(page.locator(".facts")).to_be_visible()
    expect(page.locator(".notice.bad")).to_have_count(0)


def test_escape_in_a_title_stops_no_answer(visit: Visit) -> None:
    page = visit.chat()
    page.locator("header select").select_option(ENDLESS)
    visit.ask("Named otherwise", wait=False)
    expect(page.locator(".turn.assistant .text")).to_contain_text("Bees make")
    page.get_by_role("button", name="More of Named otherwise").click()
    page.get_by_role("button", name="Rename").click()
    page.get_by_label("New title").press("Escape")
    expect(page.get_by_label("New title")).to_have_count(0)
    page.wait_for_timeout(300)
    expect(page.get_by_text("Stopped.")).to_have_count(0)
    page.keyboard.press("Escape")
    expect(page.get_by_text("Stopped.")).to_be_visible()


def test_an_answer_that_a_reload_cut_is_there_and_says_so(visit: Visit) -> None:
    page = visit.chat()
    page.locator("header select").select_option(ENDLESS)
    expect(page.locator("header progress")).to_have_count(0)
    visit.ask("Tell me all", wait=False)
    expect(page.locator(".turn.assistant .text")).to_contain_text("Bees make")
    page.wait_for_timeout(6000)  # what is written is kept every 3 s
    page.reload()
    expect(page.get_by_text("This answer broke off.")).to_be_visible()
    page.locator("header select").select_option(TALKER)
    page.get_by_role("button", name="Answer again in a new branch").click()
    visit.wait_for_end()
    expect(page.locator(".turn.assistant .text")).to_contain_text(SHOWN)


def test_two_models_answer_two_chats_and_a_swap_ends_no_answer(visit: Visit) -> None:
    page = visit.chat()
    page.locator("header select").select_option(ENDLESS)
    visit.ask("One", wait=False)
    expect(page.locator(".turn.assistant .text")).to_contain_text("Bees make")
    page.locator("header select").select_option(TALKER)
    page.get_by_role("button", name="New chat", exact=True).click()
    visit.ask("Two")
    expect(page.locator(".turn.assistant .text")).to_have_text(SHOWN)
    page.get_by_role("button", name="One", exact=True).click()
    expect(page.locator(".turn.assistant")).to_have_attribute("aria-busy", "true")
    page.keyboard.press("Escape")
    expect(page.get_by_text("Stopped.")).to_be_visible()


def test_the_focus_comes_back_from_dialogs_and_forms(visit: Visit) -> None:
    page = visit.chat()
    visit.ask("one")
    for name in ("Settings of this chat (Ctrl+,)", "Keys (?)", "Sign in"):
        opener = page.get_by_role("button", name=name)
        opener.focus()
        page.keyboard.press("Enter")
        expect(page.locator("dialog[open]")).to_be_visible()
        page.keyboard.press("Escape")
        expect(opener).to_be_focused()
    page.get_by_role("button", name="More of one").click()
    page.get_by_role("button", name="Rename").click()
    page.keyboard.type("two")
    page.keyboard.press("Enter")
    expect(page.locator(".chats .more")).to_be_focused()
    edit = page.get_by_role("button", name="Edit the question in a new branch")
    edit.click()
    page.keyboard.press("Escape")
    expect(edit).to_be_focused()


def test_a_question_asked_offline_fails_once_and_is_answered_online(visit: Visit) -> None:
    page = visit.chat()
    visit.context.set_offline(True)
    visit.ask("Anybody?")
    page.wait_for_timeout(500)  # the page looks at the models too
    expect(page.locator(".notice.bad")).to_have_text(["The server can't be reached."])
    visit.context.set_offline(False)
    page.get_by_role("button", name="Answer again in a new branch").click()
    visit.wait_for_end()
    expect(page.locator(".turn.assistant .text")).to_have_text(SHOWN)
    visit.problems.clear()  # the console tells of what could not be asked
