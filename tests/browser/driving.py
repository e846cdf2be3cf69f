"""A page in Chromium: opened, typed into, and answered by a script where a test needs that."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from playwright.sync_api import BrowserContext, Page, Request, Route, expect

from tests.browser.talking_app import TALKER

CHROMIUM: Final = Path("/usr/bin/chromium")
ARGUMENTS: Final = (
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
    "--disable-background-networking", "--disable-component-update",
)  # fmt: skip
PATIENCE_MS: Final = 60_000
"""How long anything may take that should take a moment: machines that run tests are shared."""
# What a page of this server may say on the console; everything else fails its test.
_EXPECTED: Final = ("401 (Unauthorized)", "400 (Bad Request)")

CHOSEN: Final = "llmhost.model"

_FAKE_STREAM: Final = """
(answers => {
  const real = window.fetch.bind(window);
  const queue = [...answers];
  window.asked = [];
  window.fetch = async (resource, options = {}) => {
    if (!String(resource).endsWith("/v1/chat/completions") || !queue.length) {
      return real(resource, options);
    }
    window.asked.push(JSON.parse(options.body));
    const { choices, every, finish, held } = queue.shift();
    const encoder = new TextEncoder();
    const body = new ReadableStream({
      async start(controller) {
        const send = (data) => controller.enqueue(encoder.encode("data: " + data + "\\n\\n"));
        const began = performance.now();
        let tokens = 0;
        for (let turn = 0; turn < Math.max(...choices.map((deltas) => deltas.length)); turn++) {
          for (const [index, deltas] of choices.entries()) {
            if (turn >= deltas.length) continue;
            tokens += 1;
            const delta = deltas[turn];
            send(JSON.stringify({ choices: [{ index, delta, finish_reason: null }] }));
          }
          const early = began + turn * every - performance.now();
          if (early > 0) await new Promise((resolve) => setTimeout(resolve, early));
        }
        if (held) await new Promise((resolve) => { window.letGo = resolve; });
        for (const index of choices.keys()) {
          send(JSON.stringify({ choices: [{ index, delta: {}, finish_reason: finish }] }));
        }
        send(JSON.stringify({ choices: [], usage: {
          prompt_tokens: 12, completion_tokens: tokens, total_tokens: 12 + tokens } }));
        send("[DONE]");
        controller.close();
      },
    });
    return new Response(body, { status: 200, headers: { "Content-Type": "text/event-stream" } });
  };
})(%s)
"""


class Visit:
    """One browser context at one server, and what went wrong in it."""

    def __init__(self, context: BrowserContext, url: str) -> None:
        self.context = context
        self.url = url
        self.problems: list[str] = []
        self.elsewhere: list[str] = []
        context.set_default_timeout(PATIENCE_MS)
        expect.set_options(timeout=PATIENCE_MS)
        context.route("**/*", self._at_home)
        # else it would begin with the one that another test used last
        context.add_init_script(
            f"localStorage.getItem('{CHOSEN}') ?? localStorage.setItem('{CHOSEN}', '{TALKER}')"
        )
        self.page: Page = context.new_page()
        self.watch(self.page)

    def watch(self, page: Page) -> None:
        page.on("pageerror", lambda error: self.problems.append(f"error: {error}"))
        page.on("console", lambda message: self._note(message.type, message.text))
        page.on("requestfailed", self._note_failure)

    def open(self, path: str = "") -> Page:
        self.page.goto(f"{self.url}/{path}")
        expect(self.page.get_by_text("Loading the page")).to_have_count(0)
        return self.page

    def chat(self) -> Page:
        """Open the chat page and wait until it knows its model."""
        self.open()
        expect(self.page.locator(".facts")).to_be_visible()
        return self.page

    def fake(self, *answers: str | Sequence[Sequence[dict[str, Any]]], **options: Any) -> None:
        """Have the next answers be these: a text, or deltas for each choice.

        Where they are `held`, none ends before `let_go`.
        """
        every, finish = options.get("every", 0), options.get("finish", "stop")
        scripts = [
            {
                "choices": [[{"content": answer}]] if isinstance(answer, str) else answer,
                "every": every,
                "finish": finish,
                "held": options.get("held", False),
            }
            for answer in answers
        ]
        self.page.evaluate(_FAKE_STREAM % json.dumps(scripts))

    def let_go(self) -> None:
        """End an answer that is held, once it is under way."""
        for _ in range(PATIENCE_MS // 20):
            if self.page.evaluate("window.letGo ? (window.letGo(), true) : false"):
                return
            self.page.wait_for_timeout(20)
        raise AssertionError("no answer is held")

    def ask(self, text: str, *, wait: bool = True) -> None:
        self.page.fill("#question", text)
        self.page.keyboard.press("Enter")
        if wait:
            self.wait_for_end()

    def wait_for_end(self) -> None:
        expect(self.page.locator(".turn.assistant").last).to_be_attached()
        expect(self.page.locator(".turn.assistant[aria-busy=true]")).to_have_count(0)
        expect(self.page.get_by_role("button", name="Send (Enter)")).to_be_visible()

    def _at_home(self, route: Route) -> None:
        if urlsplit(route.request.url).hostname == "127.0.0.1":
            route.continue_()
        else:
            self.elsewhere.append(route.request.url)
            route.abort()

    def _note_failure(self, request: Request) -> None:
        # a stream that the user stopped, or left by going elsewhere
        if request.failure != "net::ERR_ABORTED":
            self.problems.append(f"failed: {request.url} {request.failure}")

    def _note(self, kind: str, text: str) -> None:
        if kind in ("error", "warning") and not any(words in text for words in _EXPECTED):
            self.problems.append(f"{kind}: {text}")
