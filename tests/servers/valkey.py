"""A Valkey server, or the Redis of Debian 12, in a temporary folder behind a Unix socket."""

import shutil
import socket
from functools import cache
from signal import SIGCONT, SIGSTOP

from tests.servers.process import ServerProcess

PROGRAM = shutil.which("valkey-server") or shutil.which("redis-server")
MISSING = "" if PROGRAM else "neither Valkey nor Redis is installed: `make test` as root does it"


class Valkey:
    """A server that can be stopped and started again, and forgets everything in between."""

    def __init__(self) -> None:
        self._process = ServerProcess("valkey")
        self._socket = self._process.folder / "socket"
        self.url = f"unix://{self._socket}"
        self.start()

    def start(self) -> None:
        """Start it and wait until it answers."""
        assert PROGRAM is not None
        options = {"--port": "0", "--unixsocket": str(self._socket), "--save": ""}
        self._process.start(
            [PROGRAM, *(word for pair in options.items() for word in pair)], self._is_ready
        )

    def stop(self) -> None:
        """Stop it: connections are closed."""
        self._process.stop()

    def freeze(self) -> None:
        """Let it take connections and answer nothing."""
        self._process.signal(SIGSTOP)

    def thaw(self) -> None:
        """Let it go on."""
        self._process.signal(SIGCONT)

    def clear(self) -> None:
        """Forget everything."""
        assert self._answer(b"FLUSHALL") == b"+OK\r\n"

    def _is_ready(self) -> bool:
        try:
            return self._answer(b"PING") == b"+PONG\r\n"
        except OSError:
            return False

    def _answer(self, command: bytes) -> bytes:
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(60)
            client.connect(str(self._socket))
            client.sendall(command + b"\r\n")
            return client.recv(64)


@cache
def valkey() -> Valkey:
    """The server of this process."""
    return Valkey()
