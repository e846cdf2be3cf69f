"""The operator's page: what it shows of a server, and what an administrator does there."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from tests.browser.conftest import serve
from tests.browser.driving import Visit
from tests.browser.talking_app import TALKER
from tests.browser.test_access import axe, check  # noqa: F401 # a fixture
from tests.e2e.server import ROOT, Server

PASSWORD = "correct horse"


@pytest.fixture(scope="module")
def operated(
    browser: Any,  # noqa: ARG001 # without it there is nobody to serve
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Server]:
    """A server with an administrator `root` and a user `ada`."""
    folder = tmp_path_factory.mktemp("operated")
    with serve(folder) as running:
        for name, options in (("root", ["--admin"]), ("ada", [])):
            subprocess.run(
                [sys.executable, "-m", "app", "users", "create", name, *options],
                cwd=ROOT,
                env={"LLMHOST_DATA_DIR": str(folder), "PATH": "", "LLMHOST_ARGON2_MEMORY_KIB": "8"},
                input=f"{PASSWORD}\n{PASSWORD}\n",
                text=True,
                check=True,
                capture_output=True,
            )
        yield running


def figure(page: Page, name: str) -> str:
    term = page.locator(".figures dt", has_text=name)
    return term.locator("xpath=following-sibling::dd").inner_text()


def test_it_shows_what_the_server_did_in_drawings_with_tables(
    new_visit: Callable[..., Visit], operated: Server
) -> None:
    with operated.client() as client:
        body = {"prompt": "Hello", "max_length": 20}
        assert client.post("/generate", json=body).status_code == 200
        assert client.post("/generate", json={"prompt": ""}).status_code == 400
    visit = new_visit(operated)
    page = visit.open("admin")
    expect(page.locator("header")).to_contain_text("at the server's machine")
    assert figure(page, "Running") == "0"
    assert int(figure(page, "Slots")) > 0
    expect(page.get_by_role("row", name="refused or failed: invalid_parameter 1")).to_be_visible()
    drawing = page.get_by_role("img", name="Time to the first token: half within")
    expect(drawing.locator("rect").first).to_be_visible()
    chart = page.locator("figure", has=drawing)
    expect(chart.locator("figcaption")).to_contain_text("1 in all")
    chart.get_by_text("As a table").click()
    expect(chart.get_by_role("columnheader", name="How many")).to_be_visible()
    # live: another answer shows without a reload
    with operated.client() as client:
        client.post("/generate", json=body)
    expect(chart.locator("figcaption")).to_contain_text("2 in all")
    page.get_by_label("only since this page was opened").check()
    expect(chart.locator("figcaption")).to_contain_text("1 in all")


def test_models_are_unloaded_and_loaded(new_visit: Callable[..., Visit], operated: Server) -> None:
    page = new_visit(operated).open("admin")
    row = page.get_by_role("row").filter(has_text=TALKER)
    page.get_by_role("button", name=f"Unload {TALKER}").click()
    expect(row).to_contain_text("on disk")
    page.get_by_role("button", name=f"Load {TALKER}").click()
    expect(row).to_contain_text("loaded")
    expect(page.get_by_role("button", name=f"Unload {TALKER}")).to_be_enabled()
    page.get_by_label("Model on the Hugging Face Hub").fill("no such thing")
    page.get_by_role("button", name="Fetch and export").click()
    expect(page.locator("#source:invalid")).to_be_visible()


def test_accounts_are_an_administrators_to_change(
    new_visit: Callable[..., Visit], operated: Server
) -> None:
    page = new_visit(operated).open("admin")
    ada = page.get_by_role("row").filter(has=page.get_by_role("rowheader", name="ada"))
    expect(ada).to_be_visible()
    expect(page.get_by_role("button", name="Delete ada…")).to_have_count(0)
    page.get_by_role("button", name="Sign in").click()
    page.get_by_label("Name", exact=True).fill("root")
    page.get_by_label("Password", exact=True).fill(PASSWORD)
    page.keyboard.press("Enter")
    expect(page.locator("header")).to_contain_text("root")
    page.get_by_role("button", name="New key for ada").click()
    page.get_by_label("Name of a new key of ada").fill("laptop")
    page.get_by_role("button", name="Make it").click()
    key = page.get_by_role("status").locator("code").inner_text()
    assert key.startswith("sk-llmhost-")
    headers = {"Authorization": f"Bearer {key}"}
    with operated.client() as client:
        assert client.get("/me", headers=headers).json()["username"] == "ada"
        page.get_by_role("button", name="Revoke laptop of ada").click()
        expect(ada).not_to_contain_text("laptop")
        assert client.get("/me", headers=headers).status_code == 401
    page.get_by_role("button", name="Make ada an administrator").click()
    expect(ada).to_contain_text("admin")
    page.get_by_role("button", name="Delete ada…").click()
    page.get_by_role("button", name="Delete ada for good").click()
    expect(ada).to_have_count(0)
    page.get_by_role("button", name="Sign out").click()
    expect(page.locator("header")).to_contain_text("at the server's machine")


def test_a_closed_server_shows_nothing_before_a_sign_in(
    new_visit: Callable[..., Visit], closed: Server
) -> None:
    page = new_visit(closed).open("admin")
    expect(page.get_by_role("heading", name="Sign in as an administrator")).to_be_visible()
    expect(page.locator(".figures")).to_have_count(0)


def test_it_fits_a_phone(new_visit: Callable[..., Visit], operated: Server) -> None:
    page = new_visit(operated, viewport={"width": 360, "height": 700}).open("admin")
    expect(page.locator(".figures")).to_be_visible()
    width = page.evaluate("document.documentElement.scrollWidth")
    assert width <= 360, "nothing is scrolled sideways but tables"


def test_axe_finds_no_violation(
    new_visit: Callable[..., Visit],
    operated: Server,
    axe: str,  # noqa: F811 # the one above
) -> None:
    visit = new_visit(operated)
    page = visit.open("admin")
    expect(page.locator(".figures")).to_be_visible()
    for summary in page.get_by_text("As a table").all():
        summary.click()
    check(visit, axe)


def test_where_a_proxy_keeps_the_figures_back_the_rest_is_shown(
    new_visit: Callable[..., Visit], operated: Server
) -> None:
    visit = new_visit(operated)
    visit.context.route("**/metrics", lambda route: route.fulfill(status=404))
    page = visit.open("admin")
    expect(page.get_by_role("heading", name="Models")).to_be_visible()
    expect(page.get_by_text("There are no figures")).to_be_visible()
    visit.problems.clear()  # the console tells of each 404
