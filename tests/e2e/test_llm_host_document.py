"""LLM Host's document against a real server: its Python class and each of its curl lines.

Changed in its text: the address, and the user's name, since the server is other tests' too.
"""

import json
import uuid
from pathlib import Path

import httpx

from tests.e2e.documents import curl_lines, document, run_python, run_shell, section
from tests.e2e.server import Server

HOST = "https://humblebeeai-llm-host.hf.space"


def read(base_url: str, name: str) -> str:
    text = document("llm-host-api.txt")
    return text.replace(HOST, base_url).replace("testuser", name)


def test_the_python_class_runs_with_its_two_defects_mended(server: Server, tmp_path: Path):
    text = read(server.url, f"class-{uuid.uuid4().hex}")
    program = section(text, "import requests\n", "Example Responses:")
    for defect, mended in (
        # the attribute of the same name hides the method
        ("def refresh_token(self)", "def refresh(self)"),
        ("client.refresh_token()", "client.refresh()"),
        # no line of an event stream is JSON
        ('line.decode("utf-8")', 'line.decode("utf-8").removeprefix("data: ")'),
    ):
        assert program.count(defect) == 1
        program = program.replace(defect, mended)
    # all but the first two lines and the last is the model's, which may say anything
    first, second, *_, last = run_python(program, tmp_path).splitlines()
    assert first == "✅ Registration successful!"
    assert second.startswith("✅ Login successful! Token: eyJ")
    assert last.startswith("✅ Token refreshed! New Token: eyJ")
    for line in (first, second, last):
        assert "⚠️" not in line
        assert not line.endswith("None")


def test_the_loop_runs_as_it_is_with_ndjson(server: Server, tmp_path: Path):
    text = read(server.url, f"ndjson-{uuid.uuid4().hex}")
    program = section(text, "import requests\n", "# Step 4: Refresh Token")
    headers = '"Content-Type": "application/json",\n'
    assert program.count(headers) == 1, "the one of generate(), which goes on"
    accept = '"Accept": "application/x-ndjson",\n'
    program = program.replace(headers, headers + " " * 12 + accept)
    printed = run_python(f"{program}\nexcept ZeroDivisionError: pass", tmp_path)
    assert len(printed.splitlines()) > 2


def test_every_curl_line_prints_what_the_document_shows(server: Server):
    name = f"curl-{uuid.uuid4().hex}"
    tokens: dict[str, str] = {}
    commands = curl_lines(read(server.url, name))
    assert len(commands) == 8, "four endpoints, each shown twice"
    for command in commands:
        user = f"{name}-again" if "/register" in command and tokens else name
        for shown, real in (
            (name, user),
            ("your-access-token", tokens.get("access_token", "")),
            ("your-refresh-token", tokens.get("refresh_token", "")),
            ("curl ", "curl -sS --fail-with-body "),
        ):
            command = command.replace(shown, real)  # noqa: PLW2901 # the same command, filled in
        printed = run_shell(command)
        if "/generate" in command:
            events = printed.removesuffix("\n\n").split("\n\n")
            contents = [json.loads(event.removeprefix("data: ")) for event in events]
            assert all(content.keys() == {"content"} for content in contents)
            assert "".join(content["content"] for content in contents)
            continue
        answer = json.loads(printed)
        if "/register" in command:
            assert answer == {"message": "User registered successfully", "user": user}
        else:
            assert answer.keys() == {"access_token", "refresh_token", "token_type"}
            assert answer["token_type"] == "bearer"
            tokens = answer


def test_a_whole_reply_is_the_documented_body(server: Server):
    name, password = f"whole-{uuid.uuid4().hex}", "testpassword"
    with httpx.Client(base_url=server.url, timeout=600) as client:
        body = {"username": name, "password": password}
        assert client.post("/register", json=body).status_code == 200
        token = client.post("/login", data=body).json()["access_token"]
        headers = {"Authorization": f"Bearer {token}"}
        answer = client.post("/generate", json={"query": "test query"}, headers=headers)
    assert answer.status_code == 200
    assert answer.json().keys() == {"content"}
