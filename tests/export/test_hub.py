"""A model from the Hub, end to end, against a loopback server that speaks the Hub's API."""

import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from app.manifest import read_manifest
from tests.export.tiny import CONFIGS, save_tiny
from tests.export.tiny_gguf import tiny_fields, tiny_tensors, write_gguf

COMMIT = "0123456789abcdef0123456789abcdef01234567"
TOKEN = "hf_of_a_test"
WEIGHTS = "model.safetensors"


class Hub(ThreadingHTTPServer):
    """Serves one folder as `publisher/tiny`, and knows which requests came."""

    daemon_threads = True

    def __init__(self, folder: Path) -> None:
        super().__init__(("127.0.0.1", 0), Answers)
        self.folder = folder
        self.log: list[str] = []
        self.break_off: set[str] = set()
        """Files whose next answer ends in the middle."""
        self.gated = False

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class Answers(BaseHTTPRequestHandler):
    """The two endpoints that a download takes."""

    protocol_version = "HTTP/1.1"
    server: Hub

    def log_message(self, *_: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        self.server.log.append(
            f"{self.command} {self.path} {self.headers.get('Range', '')}".strip()
        )
        if info := re.fullmatch(r"/api/models/publisher/tiny/revision/(\w+)", self.path):
            if info[1] not in ("main", COMMIT, "v1"):
                return self.refuse(404, "RevisionNotFound")
            files = sorted(str(p.relative_to(self.server.folder)) for p in self.files())
            siblings = [{"rfilename": name} for name in files]
            return self.answer({"id": "publisher/tiny", "sha": COMMIT, "siblings": siblings})
        if file := re.fullmatch(r"/publisher/tiny/resolve/(\w+)/(.+)", self.path):
            if self.server.gated and self.headers.get("Authorization") != f"Bearer {TOKEN}":
                return self.refuse(403 if "Authorization" in self.headers else 401, "GatedRepo")
            path = self.server.folder / file[2]
            return self.send(path) if path in self.files() else self.refuse(404, "EntryNotFound")
        return self.refuse(401, "RepoNotFound")

    def files(self) -> list[Path]:
        return [path for path in self.server.folder.rglob("*") if path.is_file()]

    def answer(self, body: Any) -> None:
        encoded = json.dumps(body).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(encoded)))
        self.end_headers()
        self.wfile.write(encoded)

    def refuse(self, status: int, code: str) -> None:
        self.send_response(status)
        self.send_header("X-Error-Code", code)
        self.send_header("X-Error-Message", code)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def send(self, path: Path) -> None:
        content, start = path.read_bytes(), 0
        if span := re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", "")):
            start = int(span[1])
        self.send_response(206 if start else 200)
        self.send_header("ETag", f'"{path.stat().st_size}-{path.stat().st_mtime_ns}"')
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        if self.command == "HEAD":
            return
        if path.name in self.server.break_off:
            self.server.break_off.remove(path.name)
            self.wfile.write(content[start : start + len(content) // 2])
            self.close_connection = True
            return
        self.wfile.write(content[start:])


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[Hub]:
    save_tiny(tmp_path / "published", CONFIGS["llama"]())
    (tmp_path / "published" / "pytorch_model.bin").write_bytes(b"a pickle")
    server = Hub(tmp_path / "published")
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


def export(
    hub: Hub, tmp_path: Path, source: str, *options: str, token: str = "", url: str = ""
) -> subprocess.CompletedProcess[str]:
    environment = {
        **os.environ,
        "HF_ENDPOINT": url or hub.url,
        "HF_HOME": str(tmp_path / "cache"),
        "HF_TOKEN": token,
        "HF_HUB_OFFLINE": "0",
        "HF_HUB_DISABLE_XET": "1",
    }
    command = [sys.executable, "-m", "export", source, "--out", str(tmp_path / "out"), *options]
    return subprocess.run(
        command, env=environment, capture_output=True, text=True, check=False, timeout=300
    )


def refused(done: subprocess.CompletedProcess[str]) -> str:
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stderr
    return done.stderr.strip().splitlines()[-1].removeprefix("refused: ")


def test_model_from_the_hub(hub: Hub, tmp_path: Path) -> None:
    done = export(hub, tmp_path, "publisher/tiny@v1")
    assert done.returncode == 0, done.stderr
    manifest = read_manifest(tmp_path / "out")
    assert manifest.model_id == "publisher/tiny"
    assert manifest.source == f"huggingface.co/publisher/tiny@v1 at {COMMIT}"
    assert any(line.startswith("GET") and line.endswith(WEIGHTS) for line in hub.log)
    assert not any("pytorch_model.bin" in line for line in hub.log)


def test_a_broken_connection_is_resumed(hub: Hub, tmp_path: Path) -> None:
    weights = hub.folder / WEIGHTS
    # The library writes pieces of 10 MB: less is not kept.
    save_file({"a": torch.zeros(7_000_000)}, weights, {"format": "pt"})
    hub.break_off.add(WEIGHTS)
    done = export(hub, tmp_path, "publisher/tiny", "--only", "resolve")
    assert done.returncode == 0, done.stderr
    assert "the connection broke off, going on" in done.stderr
    resumed = [
        int(n) for line in hub.log for n in re.findall(rf"GET .*{WEIGHTS} bytes=(\d+)-", line)
    ]
    assert resumed
    assert resumed[0] >= 10_000_000, hub.log
    fetched = next((tmp_path / "cache").rglob(WEIGHTS))
    assert fetched.read_bytes() == weights.read_bytes()


def test_gguf_file_from_the_hub(hub: Hub, tmp_path: Path) -> None:
    write_gguf(hub.folder / "Tiny-Q8.gguf", tiny_fields(), tiny_tensors())
    done = export(hub, tmp_path, "publisher/tiny/Tiny-Q8.gguf", "--only", "resolve", "--keep-work")
    assert done.returncode == 0, done.stderr
    source = json.loads((tmp_path / ".work" / "out" / "source.json").read_text())
    assert source["model_id"] == "publisher/Tiny-Q8"
    assert not any(WEIGHTS in line for line in hub.log)


def test_gated_model_needs_a_token(hub: Hub, tmp_path: Path) -> None:
    hub.gated = True
    told = refused(export(hub, tmp_path, "publisher/tiny", "--only", "resolve"))
    assert told == (
        f"publisher/tiny is gated: accept its conditions at {hub.url}/publisher/tiny, then set "
        "HF_TOKEN to a token of that account"
    )
    done = export(hub, tmp_path, "publisher/tiny", "--only", "resolve", token=TOKEN)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("publisher/other", "nor a model publisher/other at {url}; if it is private, set HF_TOKEN"),
        ("publisher/tiny@v9", "publisher/tiny has no revision 'v9'"),
        ("publisher/tiny/none.gguf", "publisher/tiny has no file 'none.gguf'"),
        ("publisher", "'publisher' is neither a file, nor a folder, nor a model's name on the Hub"),
    ],
)
def test_what_is_not_there_is_named(source: str, said: str, hub: Hub, tmp_path: Path) -> None:
    assert said.format(url=hub.url) in refused(export(hub, tmp_path, source, "--only", "resolve"))


def test_a_hub_that_can_not_be_reached(hub: Hub, tmp_path: Path) -> None:
    url = "http://127.0.0.1:9"  # nobody listens there
    told = refused(export(hub, tmp_path, "publisher/tiny", "--only", "resolve", url=url))
    assert told.startswith(
        f"{url} can't be reached, and publisher/tiny has not been fetched before"
    )
