"""The command line as a person types it: real processes, a server beside them or none."""

import codecs
import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from tests.e2e.scripted_app import FIRST, SECOND, TEXT, write_models
from tests.e2e.server import DEFAULT_MODEL, PATIENCE_S, ROOT, START_S, Server, free_port, wait_for

SAID = TEXT.partition("\n")[0]
"""Whole on a line of a terminal."""


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "app", *arguments]


def environment(folder: Path, **settings: object) -> dict[str, str]:
    theirs = {k: v for k, v in os.environ.items() if not k.startswith("LLMHOST_")}
    ours = {"data_dir": folder, "models_dir": folder / "models", **settings}
    names = {f"LLMHOST_{name.upper()}": str(value) for name, value in ours.items()}
    return theirs | names | {"XDG_STATE_HOME": str(folder / "state"), "TERM": "xterm"}


def run(folder: Path, *arguments: str, typed: str = "", **settings: object):
    return subprocess.run(
        command(*arguments),
        cwd=ROOT,
        env=environment(folder, **settings),
        input=typed,
        capture_output=True,
        text=True,
        check=False,
        timeout=START_S,
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_models(tmp_path / "models")
    return tmp_path


def test_a_prompt_and_what_is_piped_go_to_the_server_that_is_named(scripted: Server, folder: Path):
    asked = ("run", "first", "Say it", "--url", scripted.url, "--json")
    done = run(folder, *asked, typed="all of it")
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert (answer["model"], answer["text"], answer["finish_reason"]) == (FIRST, TEXT, "stop")
    assert run(folder, *asked[:-1]).stdout == TEXT.replace("\r\n", "\n") + "\n"
    log = scripted.log.read_text()
    assert " request method=POST path=/v1/chat/completions status=200 " in log
    assert "all of it" not in log  # no prompt unless that is asked for


def test_without_a_server_the_model_runs_in_the_process(folder: Path):
    port = free_port()
    # greedily: what it says is noise, of which the end may be the first token
    asked = ("run", SECOND, "Hi", "--json", "--max-tokens", "3", "--temperature", "0")
    done = run(folder, *asked, port=port)
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert (answer["model"], answer["tokens"]) == (SECOND, 3)
    missing = run(folder, "run", "no/model", "Hi", port=port)
    assert missing.returncode == 1
    assert missing.stderr.startswith("There is no model 'no/model' in ")


def test_a_server_that_does_not_answer_is_said_with_what_to_do(folder: Path):
    url = f"http://127.0.0.1:{free_port()}"
    for asked in (("ps", "--url", url), ("run", FIRST, "Hi", "--url", url)):
        done = run(folder, *asked)
        assert done.returncode == 3
        assert done.stderr.startswith(f"no server answers at {url} (")
        assert "`llmhost serve`" in done.stderr


def test_ps_shows_what_a_server_has_in_memory(scripted: Server, folder: Path):
    [row] = json.loads(run(folder, "ps", "--url", scripted.url, "--json").stdout)
    assert (row["model"], row["state"], row["running"]) == (FIRST, "loaded", 0)
    assert row["slots"] >= 1
    assert run(folder, "ps", "--url", scripted.url).stdout.startswith(f"{FIRST}\tloaded\t")


class Terminal:
    """A program on a terminal of its own."""

    def __init__(self, end: int, process: "subprocess.Popen[bytes]") -> None:
        self._end = end
        self.process = process
        self.shown = ""
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._begun = ""
        """An escape sequence whose end has not been read."""

    def type(self, text: str) -> None:
        os.write(self._end, text.encode())

    def wait_for(self, text: str) -> None:
        """Wait until a text is shown after what was waited for before."""
        give_up = time.monotonic() + PATIENCE_S
        while text not in self.shown:
            assert time.monotonic() < give_up, f"no {text!r} in {self.shown!r}"
            if select.select([self._end], [], [], 0.1)[0]:
                try:
                    read = os.read(self._end, 65536)
                except OSError:  # the program has ended
                    break
                new, self._begun = self._begun + self._decoder.decode(read), ""
                if half := re.search(r"\x1b(\[[0-9;?]*)?$", new):
                    new, self._begun = new[: half.start()], half[0]
                if "\x1b[6n" in new:  # it asks where the cursor is
                    self.type("\x1b[1;1R")
                self.shown += re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", new)
        assert text in self.shown, f"no {text!r} in {self.shown!r}"
        self.shown = self.shown.partition(text)[2]


@contextmanager
def on_a_terminal(folder: Path, *arguments: str) -> Iterator[Terminal]:
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (40, 120))
    process = subprocess.Popen(
        command(*arguments),
        cwd=ROOT,
        env=environment(folder),
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
    )
    os.close(theirs)
    try:
        yield Terminal(ours, process)
    finally:
        process.kill()
        process.wait()
        os.close(ours)


def test_a_chat_answers_takes_commands_and_ends(scripted: Server, folder: Path):
    with on_a_terminal(folder, "chat", "--url", scripted.url) as terminal:
        terminal.wait_for(f"{FIRST} on {scripted.url}")
        terminal.wait_for(">>>")
        terminal.type("Say it\r")
        terminal.wait_for(SAID)
        terminal.wait_for(">>>")
        terminal.type("/model second\r")
        terminal.wait_for(f"{SECOND} on {scripted.url}")
        terminal.wait_for(">>>")
        terminal.type("/show\r")
        terminal.wait_for("user: Say it")
        terminal.wait_for(f"assistant: {SAID}")
        terminal.wait_for(">>>")
        terminal.type("\x04")
        assert terminal.process.wait(PATIENCE_S) == 0
    assert "Say it" in (folder / "state" / "llmhost" / "chat_history").read_text()


def test_ctrl_c_stops_the_answer_and_not_the_chat(folder: Path):
    chat = ("chat", "--local", "--model", DEFAULT_MODEL, "--models-dir", str(ROOT / "models"))
    with on_a_terminal(folder, *chat, "--temperature", "0") as terminal:
        terminal.wait_for(f"{DEFAULT_MODEL} in this process")
        terminal.wait_for(">>>")
        terminal.type("Write a very long story.\r")
        terminal.wait_for(" the ")  # it answers
        os.killpg(terminal.process.pid, signal.SIGINT)
        terminal.wait_for("(stopped)")
        terminal.wait_for(">>>")
        terminal.type("/show\r")
        terminal.wait_for("assistant: ")
        terminal.wait_for(">>>")
        terminal.type("/exit\r")
        assert terminal.process.wait(PATIENCE_S) == 0


def test_chat_without_a_terminal_names_the_command_for_pipes(folder: Path):
    done = run(folder, "chat", typed="Hi\n")
    assert (done.returncode, "`llmhost run MODEL`" in done.stderr) == (2, True)


def test_serve_serves_what_the_flags_say_logs_json_and_stops_in_order(folder: Path):
    port, log = free_port(), folder / "log"
    arguments = ("serve", "--port", str(port), "--model", FIRST, "--slots", "3")
    settings = environment(folder, log_format="json", log_prompts=True)
    with log.open("wb") as output:
        process = subprocess.Popen(
            command(*arguments), cwd=ROOT, env=settings, stdout=output, stderr=output
        )
    url = f"http://127.0.0.1:{port}"
    try:
        wait_for(
            lambda: "ready on " in log.read_text() or process.poll() is not None,
            "no ready line",
            START_S,
        )
        assert httpx.get(f"{url}/models/current").json()["slots"] == 3
        body = {"prompt": "a secret", "max_length": 3, "temperature": 0}
        answer = httpx.post(f"{url}/generate", json=body, headers={"X-Request-Id": "mine"})
        assert answer.headers["x-request-id"] == "mine"
        taken = run(folder, "serve", "--port", str(port), "--model", FIRST)
        assert taken.returncode == 1
        assert taken.stderr.startswith(f"Port {port} of 127.0.0.1 is in use by process ")
    finally:
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE_S) == 0
    assert "Listening at" not in log.read_text()
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    events = [line["event"] for line in lines]
    assert events.index("model_loading") < events.index("model_loaded") < events.index("ready")
    of_ours = {line["event"]: line for line in lines if line.get("request_id") == "mine"}
    assert "user\na secret" in of_ours["prompt"]["text"]
    asked = of_ours["request"]
    assert (asked["method"], asked["path"], asked["status"]) == ("POST", "/generate", 200)
    assert (asked["prompt_tokens"], asked["tokens"]) == (of_ours["prompt"]["tokens"], 3)
    assert asked["duration_ms"] > 0
