"""`kill -9` in the middle of registrations and chats loses nothing that was acknowledged."""

import asyncio
import os
import signal
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from tests.e2e.server import Server, running_server

PASSWORD = "testpassword"
SETTINGS = {
    "argon2_memory_kib": 8,  # registrations, not hashes, shall be what is interrupted
    "argon2_time_cost": 1,
    "login_attempts_per_address": 0,
    "registrations_per_address": 0,
    "default_max_tokens": 4,
    "max_waiting": 256,
}


@dataclass
class Seen:
    """What clients tried, and what they were told."""

    tried: set[str] = field(default_factory=set)
    registered: set[str] = field(default_factory=set)
    replies: dict[str, str] = field(default_factory=dict)


async def register_and_chat(
    client: httpx.AsyncClient, chat: str | None, headers: dict, seen: Seen
) -> None:
    """Register, and chat where there is an address for it, until the server is gone."""
    try:
        while True:
            name = f"user{len(seen.tried)}"
            seen.tried.add(name)
            answer = await client.post("/register", json={"username": name, "password": PASSWORD})
            assert answer.status_code == 200
            seen.registered.add(name)
            if chat is None:
                continue
            body = {"messages": [{"role": "user", "content": f"Hello from {name}"}]}
            answer = await client.post(f"{chat}?chat_id={name}", json=body, headers=headers)
            assert answer.status_code == 200
            seen.replies[name] = answer.text
    except httpx.TransportError:
        pass


async def login(client: httpx.AsyncClient, name: str) -> httpx.Response:
    return await client.post("/login", data={"username": name, "password": PASSWORD})


async def sign_in(client: httpx.AsyncClient, name: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {(await login(client, name)).json()['access_token']}"}


def kill(server: Server) -> None:
    for pid in [server.process.pid, *server.worker_pids()]:
        os.kill(pid, signal.SIGKILL)
    server.process.wait()


async def test_a_killed_server_keeps_all_that_it_acknowledged_and_nothing_half(tmp_path: Path):
    seen = Seen()
    with running_server(tmp_path, **SETTINGS) as server:
        async with server.async_client() as client:
            await client.post("/register", json={"username": "owner", "password": PASSWORD})
            headers = await sign_in(client, "owner")
            model = (await client.get("/health")).json()["model"]
            chat = f"/api/ai/huggingface/{model}/chat"
            clients = [
                # chats take long: who only registers is there to be interrupted in it
                asyncio.create_task(
                    register_and_chat(client, chat if i % 5 else None, headers, seen)
                )
                for i in range(100)
            ]
            while len(seen.registered) < 100 or len(seen.replies) < 10:
                await asyncio.sleep(0.01)
                assert not any(task.done() for task in clients), "a client failed too early"
            kill(server)
            await asyncio.gather(*clients)
    assert seen.tried - seen.registered, "a registration must have been interrupted"
    assert len(seen.replies) < len(seen.registered), "a chat must have been interrupted"

    with running_server(tmp_path, **SETTINGS) as server:
        async with server.async_client() as client:
            for name in seen.tried:
                there = (await login(client, name)).status_code == 200
                assert there or name not in seen.registered, f"{name} was acknowledged and is lost"
                if not there:
                    body = {"username": name, "password": PASSWORD}
                    answer = await client.post("/register", json=body)
                    assert answer.status_code == 200, f"{name} is half there: {answer.text}"
            headers = await sign_in(client, "owner")
            for name in seen.registered:
                answer = await client.get(f"/api/chats/{name}", headers=headers)
                if answer.status_code == 404:
                    assert name not in seen.replies, f"the chat of {name} is lost"
                    continue
                question, reply = answer.json()["messages"]
                assert question["content"] == f"Hello from {name}"
                assert reply["complete"], "a killed server writes no broken-off replies"
                assert seen.replies.get(name, reply["content"]) == reply["content"]
