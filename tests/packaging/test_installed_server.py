"""An installed copy, in an environment and a folder of its own, serves a chat and stops."""

import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

from app.manifest import MANIFEST_NAME, folder_name
from tests.e2e.server import DEFAULT_MODEL, PATIENCE_S, START_S, free_port, wait_for
from tests.packaging.commands import ROOT, clean_environment

QUESTION = "What is the capital of Japan?"


@contextmanager
def started(folder: Path, *command: object) -> Iterator[tuple[subprocess.Popen[bytes], Path]]:
    log = folder / "server.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [str(part) for part in command],
            cwd=folder,
            env=clean_environment(),
            stdout=output,
            stderr=output,
        )
    try:
        yield process, log
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()


def test_an_installed_server_answers_a_chat_and_stops(python: Path, tmp_path: Path) -> None:
    model = ROOT / "models" / folder_name(DEFAULT_MODEL)
    assert (model / MANIFEST_NAME).is_file(), f"{model} is missing: `make test` exports it first"
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / model.name).symlink_to(model.resolve())
    port = free_port()
    command = (python.with_name("llmhost"), "serve", "--port", port)
    with started(tmp_path, *command) as (process, log):
        wait_for(
            lambda: "ready on" in log.read_text() or process.poll() is not None,
            "the server is not ready",
            START_S,
        )
        assert process.poll() is None, log.read_text()
        answer = httpx.post(
            f"http://127.0.0.1:{port}/v1/chat/completions",
            json={
                "model": DEFAULT_MODEL,
                "messages": [{"role": "user", "content": QUESTION}],
                "temperature": 0,
                "max_tokens": 24,
            },
            timeout=60.0,
        )
        assert answer.status_code == 200, answer.text
        assert "Tokyo" in answer.json()["choices"][0]["message"]["content"]
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE_S) == 0
        assert "Traceback" not in log.read_text()
    assert (tmp_path / "data" / "llmhost.db").is_file(), "it wrote into its own folder"
