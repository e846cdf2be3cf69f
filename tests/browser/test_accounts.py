"""Accounts: register, sign in elsewhere, keys, password, the end; a server that wants a sign-in."""

from collections.abc import Callable

import pytest
from playwright.sync_api import Page, expect

from tests.browser.driving import Visit
from tests.browser.talking_app import SHOWN
from tests.e2e.server import Server

PASSWORD = "correct horse"


def sign_in(page: Page, name: str, *, new: bool = False, password: str = PASSWORD) -> None:
    if new:
        page.get_by_role("button", name="I have no account yet").click()
    page.get_by_label("Name", exact=True).fill(name)
    page.get_by_label("Password", exact=True).fill(password)
    page.keyboard.press("Enter")


def open_sign_in(page: Page) -> None:
    page.locator(".side-foot").get_by_role("button", name="Sign in").click()


def test_ones_chats_are_there_in_a_second_browser(
    new_visit: Callable[..., Visit], talking: Server
) -> None:
    first = new_visit(talking)
    page = first.chat()
    open_sign_in(page)
    sign_in(page, "ada", new=True)
    expect(page.locator(".facts")).to_contain_text("in the account ada")
    first.ask("What do bees do?")
    page.get_by_role("button", name="Answer again in a new branch").click()
    first.wait_for_end()
    expect(page.locator(".turn.assistant .branches")).to_contain_text("2 of 2")

    second = new_visit(talking)
    page = second.chat()
    expect(page.locator("#chats .open")).to_have_count(0)
    open_sign_in(page)
    sign_in(page, "ada")
    page.locator("#chats .open", has_text="What do bees do?").click()
    expect(page.locator(".turn.assistant .text")).to_have_text(SHOWN)
    expect(page.locator(".turn.assistant .branches")).to_contain_text("2 of 2")
    # another account of the same browser has none of it
    page.get_by_role("button", name="ada").click()
    page.get_by_role("button", name="Sign out").click()
    expect(page.locator("#chats .open")).to_have_count(0)
    open_sign_in(page)
    sign_in(page, "bob", new=True)
    expect(page.locator(".facts")).to_contain_text("in the account bob")
    expect(page.locator("#chats .open")).to_have_count(0)


def test_chats_of_the_browser_are_copied_into_the_account(visit: Visit) -> None:
    page = visit.chat()
    visit.fake("yes")
    visit.ask("Is it?")
    open_sign_in(page)
    sign_in(page, "mia", new=True)
    expect(page.locator(".facts")).to_contain_text("in the account mia")
    expect(page.locator("#chats .open")).to_have_count(0)
    page.get_by_role("button", name="mia").click()
    page.get_by_role("button", name="Copy into the account").click()
    page.keyboard.press("Escape")
    page.locator("#chats .open", has_text="Is it?").click()
    expect(page.locator(".turn.assistant .text")).to_have_text("yes")


def test_keys_are_made_and_revoked_and_an_account_changes_its_password_and_ends(
    visit: Visit,
) -> None:
    page = visit.chat()
    open_sign_in(page)
    sign_in(page, "eve", new=True)
    expect(page.locator(".facts")).to_contain_text("in the account eve")
    page.get_by_role("button", name="eve").click()
    page.get_by_label("Name of a new key").fill("laptop")
    page.get_by_role("button", name="Make a key").click()
    key = page.locator(".notice code").inner_text()
    told = page.evaluate(
        "key => fetch('me', {headers: {Authorization: `Bearer ${key}`}}).then(a => a.json())", key
    )
    assert told["username"] == "eve"
    page.get_by_role("button", name="Revoke laptop").click()
    expect(page.get_by_role("cell", name="laptop")).to_have_count(0)

    page.get_by_label("Current password").fill(PASSWORD)
    page.get_by_label("New password").fill("another horse")
    page.get_by_role("button", name="Change", exact=True).click()
    expect(page.get_by_text("The password is changed")).to_be_visible()

    page.get_by_role("button", name="Delete the account…").click()
    page.get_by_label("Your password; the account goes").fill(PASSWORD)
    page.get_by_role("button", name="Delete for good").click()
    expect(page.locator("dialog .notice.bad")).to_be_visible()
    page.get_by_label("Your password; the account goes").fill("another horse")
    page.get_by_role("button", name="Delete for good").click()
    expect(page.locator(".facts")).to_contain_text("in this browser")
    open_sign_in(page)
    sign_in(page, "eve", password="another horse")
    expect(page.locator("dialog .notice.bad")).to_be_visible()


def test_a_closed_server_shows_the_sign_in_and_then_the_chat(
    new_visit: Callable[..., Visit], closed: Server
) -> None:
    visit = new_visit(closed)
    page = visit.open()
    expect(page.get_by_text("This server answers those who are signed in.")).to_be_visible()
    expect(page.locator("#question")).to_have_count(0)
    sign_in(page, "ada", new=True)
    expect(page.locator(".facts")).to_contain_text("in the account ada")
    visit.ask("What do bees do?")
    expect(page.locator(".turn.assistant .text")).to_have_text(SHOWN)
    # a login that has ended elsewhere asks anew
    page.evaluate(
        "async () => { const {access} = JSON.parse(localStorage['llmhost.session']);"
        " await fetch('logout', {method: 'POST', headers: {Authorization: `Bearer ${access}`}}); }"
    )
    page.reload()
    expect(page.get_by_text("This server answers those who are signed in.")).to_be_visible()


@pytest.mark.parametrize("ended", ["1", "9999999999"])
def test_an_access_token_that_no_longer_holds_is_exchanged_unseen(
    new_visit: Callable[..., Visit], closed: Server, ended: str
) -> None:
    """By its own word, or by the server's where this machine's clock is wrong."""
    visit = new_visit(closed)
    page = visit.open()
    sign_in(page, f"ida{ended}", new=True)
    expect(page.locator(".facts")).to_be_visible()
    page.evaluate(
        "end => { const kept = JSON.parse(localStorage['llmhost.session']);"
        " kept.access = `x.${btoa(JSON.stringify({exp: Number(end)}))}.x`;"
        " localStorage['llmhost.session'] = JSON.stringify(kept); }",
        ended,
    )
    page.reload()
    expect(page.locator(".facts")).to_contain_text(f"in the account ida{ended}")
    visit.ask("What do bees do?")
    expect(page.locator(".turn.assistant .text")).to_have_text(SHOWN)
