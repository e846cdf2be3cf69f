import asyncio
import contextlib
import logging
import socket
from collections.abc import Iterator

import pytest

from app import exposure
from app.exposure import warn_if_exposed
from app.system import is_loopback, listening_addresses


@contextlib.contextmanager
def listening(host: str) -> Iterator[str]:
    with socket.socket() as server:
        server.bind((host, 0))
        server.listen()
        yield f"{host}:{server.getsockname()[1]}"


async def test_whoever_listens_to_everybody_is_warned_with_the_address(caplog):
    with listening("0.0.0.0") as address:
        await warn_if_exposed()
    [record] = [r for r in caplog.records if address in r.message]
    assert record.levelno == logging.WARNING
    assert "LLMHOST_REQUIRE_AUTH" in record.message


async def test_loopback_needs_no_warning(caplog, monkeypatch):
    monkeypatch.setattr(exposure, "LOOKS", 1)
    with listening("127.0.0.1") as address:
        assert address in listening_addresses(), "the socket must be seen or this proves nothing"
        await warn_if_exposed()
    assert address not in caplog.text


async def test_the_server_may_begin_to_listen_later(caplog, monkeypatch):
    looks = iter([[], [], [":::8000"]])
    monkeypatch.setattr(exposure, "listening_addresses", lambda: next(looks))
    monkeypatch.setattr(exposure, "LOOK_EVERY_S", 0.001)
    async with asyncio.timeout(5):
        await warn_if_exposed()
    assert ":::8000" in caplog.text


async def test_without_a_socket_it_gives_up_in_silence(caplog, monkeypatch):
    monkeypatch.setattr(exposure, "listening_addresses", list)
    monkeypatch.setattr(exposure, "LOOK_EVERY_S", 0.0)
    await warn_if_exposed()
    assert caplog.text == ""


@pytest.mark.parametrize(
    ("address", "loopback"),
    [
        ("127.0.0.1:80", True),
        ("127.8.0.1:80", True),
        ("::1:80", True),
        ("::ffff:127.0.0.1:80", True),
        ("0.0.0.0:80", False),
        (":::80", False),
        ("192.168.1.2:80", False),
    ],
)
def test_only_loopback_is_loopback(address, loopback):
    assert is_loopback(address) is loopback
