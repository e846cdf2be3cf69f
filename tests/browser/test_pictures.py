"""Pictures of the chat page for the manual, made where `SCREENSHOTS=1` asks for them.

The default model answers them by itself, greedily.
"""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from playwright.sync_api import expect

from tests.browser.driving import Visit
from tests.e2e.server import ROOT, running_server

FOLDER = ROOT / "docs" / "images"
MOST_BYTES = 150_000
QUESTION = "Write a Python function that returns the nth Fibonacci number."


@pytest.mark.skipif("SCREENSHOTS" not in os.environ, reason="SCREENSHOTS=1 asks for them")
def test_pictures_of_the_chat_page(new_visit: Callable[..., Visit], tmp_path: Path) -> None:
    FOLDER.mkdir(exist_ok=True)
    with running_server(tmp_path) as server:
        kinds = {
            "chat-light": {"viewport": {"width": 1200, "height": 780}, "color_scheme": "light"},
            "chat-dark": {"viewport": {"width": 1200, "height": 780}, "color_scheme": "dark"},
            "chat-phone": {"viewport": {"width": 360, "height": 720}, "device_scale_factor": 2},
        }
        for name, options in kinds.items():
            visit = new_visit(server, **options)
            page = visit.chat()
            page.keyboard.press("Control+,")
            page.get_by_role("spinbutton", name="Temperature").fill("0")
            page.get_by_role("button", name="Done").click()
            visit.ask(QUESTION)
            expect(page.locator(".hljs-keyword").first).to_be_visible()
            page.evaluate("scrollTo(0, 0)")
            picture = FOLDER / f"{name}.png"
            page.screenshot(path=picture)
            assert picture.stat().st_size < MOST_BYTES, name
