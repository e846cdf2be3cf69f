"""A PostgreSQL cluster of Debian's package, in a temporary folder behind a Unix socket."""

import subprocess
from functools import cache
from pathlib import Path

from tests.servers.process import ServerProcess

PROGRAMS = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
MISSING = "" if PROGRAMS else "PostgreSQL is not installed: `make test` as root installs it"


class Postgres:
    """A server that can be stopped and started again; its data stays."""

    def __init__(self) -> None:
        self._programs = PROGRAMS[-1]
        self._process = ServerProcess("postgres", user="postgres")
        self._folder = self._process.folder
        self.url = f"postgresql://postgres@/postgres?host={self._folder}"
        options = ["--username=postgres", "--auth=trust", "--encoding=UTF8", "--locale=C"]
        initdb = str(self._programs / "initdb")
        self._process.run([initdb, *options, "--no-sync", "--no-instructions", self._data])
        self.start()

    @property
    def _data(self) -> str:
        return str(self._folder / "data")

    def start(self) -> None:
        """Start it and wait until it takes connections."""
        settings = {
            "listen_addresses": "",
            "unix_socket_directories": self._folder,
            "fsync": "off",  # the folder does not outlive the tests
            "shared_buffers": "16MB",
        }
        options = [f"--{name}={value}" for name, value in settings.items()]
        self._process.start(
            [str(self._programs / "postgres"), "-D", self._data, *options], self._is_ready
        )

    def stop(self) -> None:
        """Stop it: connections are closed, what is committed is kept."""
        self._process.stop()

    def _is_ready(self) -> bool:
        command = [str(self._programs / "pg_isready"), "--quiet", f"--host={self._folder}"]
        return subprocess.run(command, check=False).returncode == 0


@cache
def postgres() -> Postgres:
    """The server of this process."""
    return Postgres()
