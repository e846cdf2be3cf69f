"""A server process that ends with the tests, and can be stopped and started in between."""

import atexit
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from threading import current_thread, main_thread

START_S = 60.0


class ServerProcess:
    """Runs one command in a folder of its own; as another user where root may not run it."""

    def __init__(self, name: str, *, user: str | None = None) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix=f"llmhost-{name}-"))
        self.log = self.folder / "log"
        self._as_user: list[str] = []
        self._process: subprocess.Popen[bytes] | None = None
        self._pytest_pid = os.getpid()
        if user is not None and os.getuid() == 0:
            entry = pwd.getpwnam(user)
            os.chown(self.folder, entry.pw_uid, entry.pw_gid)
            self._as_user = [f"--reuid={user}", f"--regid={entry.pw_gid}", "--clear-groups"]
        atexit.register(self._end)

    def start(self, command: Sequence[str], ready: Callable[[], bool]) -> None:
        """Start it and wait until it answers."""
        assert self._process is None, "it runs"
        # Linux sends the signal of --pdeathsig when the thread ends that started the process.
        assert current_thread() is main_thread(), "it would end with this thread"
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                self._prefixed(command, "--pdeathsig=INT"),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=self.folder,
                start_new_session=True,
            )
        ends_s = time.monotonic() + START_S
        while not ready():
            status = "ended" if self._process.poll() is not None else "is silent"
            in_time = status != "ended" and time.monotonic() < ends_s
            assert in_time, f"{command[0]} {status}: {self.log.read_text()[-2000:]}"
            time.sleep(0.02)

    def run(self, command: Sequence[str]) -> None:
        """Run something else as the same user, to its end."""
        done = subprocess.run(
            self._prefixed(command), cwd=self.folder, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, f"{command[0]}: {done.stdout}{done.stderr}"

    def stop(self, how: signal.Signals = signal.SIGINT) -> None:
        """Stop it and wait until it has ended; SIGINT is PostgreSQL's fast shutdown."""
        if self._process is not None:
            self._process.send_signal(how)
            self._process.wait(START_S)
            self._process = None

    def signal(self, what: signal.Signals) -> None:
        """Send it a signal: SIGSTOP makes it silent, SIGCONT lets it go on."""
        assert self._process is not None, "it does not run"
        self._process.send_signal(what)

    def _prefixed(self, command: Sequence[str], *options: str) -> list[str]:
        return ["setpriv", *self._as_user, *options, "--", *command]

    def _end(self) -> None:
        if os.getpid() == self._pytest_pid:  # a fork of the tests owns nothing
            self.stop(signal.SIGKILL)
            shutil.rmtree(self.folder, ignore_errors=True)
