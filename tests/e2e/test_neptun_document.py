"""Neptun's document against a real server: its httpx, curl and fetch examples.

Changed in their text: the address, the token and the model; the indentation that the published
page lost; the types in the fetch example, which Node can't read.
"""

import re
import shutil
import uuid
from pathlib import Path

import httpx
import pytest

from tests.e2e.documents import (
    curl_lines,
    document,
    run_node,
    run_python,
    run_shell,
    section,
)
from tests.e2e.server import Server

HOST = "https://neptun-webui.vercel.app"


@pytest.fixture
def client(server: Server):
    """Signed in as somebody new."""
    body = {"username": f"neptun-{uuid.uuid4().hex}", "password": "testpassword"}
    with httpx.Client(base_url=server.url, timeout=600) as client:
        assert client.post("/register", json=body).status_code == 200
        token = client.post("/login", data=body).json()["access_token"]
        client.headers["Authorization"] = f"Bearer {token}"
        yield client


@pytest.fixture
def token(client: httpx.Client) -> str:
    return client.headers["Authorization"].removeprefix("Bearer ")


@pytest.fixture
def model(client: httpx.Client) -> tuple[str, str]:
    publisher, name = client.get("/health").json()["model"].split("/")
    return publisher, name


@pytest.fixture
def text(server: Server) -> str:
    return document("huggingface-chat-endpoint.txt").replace(HOST, server.url)


def indented(program: str) -> str:
    """A Python program as it was before the published page lost its indentation."""
    depth, lines = 0, []
    for line in program.splitlines():
        if line.startswith(("class ", "async def ", "import ", "from ")):
            depth = 0
        lines.append("    " * depth + line)
        if line.endswith(":"):
            depth += 1
    return "\n".join(lines)


def reply(client: httpx.Client, chat_id: str) -> str:
    """The last reply that was kept."""
    last = client.get(f"/api/chats/{chat_id}").json()["messages"][-1]
    assert (last["role"], last["complete"]) == ("assistant", True)
    text: str = last["content"]
    return text


def test_the_httpx_example_prints_the_reply(
    client: httpx.Client, text: str, token: str, model: tuple[str, str], tmp_path: Path
):
    example = indented(section(text, "import httpx\n", "cURL Example"))
    call = f"stream_chat_completion({token!r}, 'httpx', {model[0]!r}, {model[1]!r}, messages)"
    messages = "[Message(role='user', content='Hello, how are you?')]"
    printed = run_python(f"{example}\nmessages = {messages}\nasyncio.run({call})\n", tmp_path)
    assert printed == reply(client, "httpx") != ""


def test_the_curl_example_prints_the_reply(
    client: httpx.Client, text: str, token: str, model: tuple[str, str]
):
    [command] = curl_lines(text)
    command = command.replace("your-token-here", token).replace("meta/llama", "/".join(model))
    printed = run_shell(command.replace("curl ", "curl -sS --fail-with-body ", 1))
    assert printed == reply(client, "123") != ""


@pytest.mark.skipif(shutil.which("node") is None, reason="there is no Node")
def test_the_fetch_example_prints_the_reply(
    client: httpx.Client, text: str, token: str, model: tuple[str, str], tmp_path: Path
):
    example = text[text.index("async function streamChatCompletion(") :]
    example = re.sub(r": (?:string|Message\[\]|Promise<void>)", "", example)
    messages = "[{role: 'user', content: 'Hello, how are you?'}]"
    arguments = f"{token!r}, 'fetch', {model[0]!r}, {model[1]!r}, {messages}"
    printed = run_node(f"{example}\nawait streamChatCompletion({arguments})\n", tmp_path)
    # console.log ends each chunk with a new line of its own
    assert printed.replace("\n", "") == reply(client, "fetch").replace("\n", "") != ""


@pytest.mark.parametrize(
    ("path", "status", "words"),
    [
        ("/api/ai/huggingface/meta/llama/chat?chat_id=1", 400, "Invalid model name or publisher"),
        ("{model}/chat", 400, "Bad Request. "),
    ],
)
def test_documented_refusals(
    client: httpx.Client, model: tuple[str, str], path: str, status: int, words: str
):
    path = path.replace("{model}", f"/api/ai/huggingface/{'/'.join(model)}")
    answer = client.post(path, json={"messages": [{"role": "user", "content": "Hello"}]})
    assert answer.status_code == answer.json()["statusCode"] == status
    assert answer.json()["statusMessage"].startswith(words)
