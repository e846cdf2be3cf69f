"""The configurations of deploy/ in front of a real server: TLS outside, streams as they come."""

import re
import shutil
import ssl
import subprocess
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import httpx
import pytest

from tests.e2e.server import DEFAULT_MODEL, ROOT, Server, free_port, least, wait_for
from tests.e2e.test_metrics import scrape

DEPLOY = ROOT / "deploy"
NAME = "llm.example.org"
OURS = "localhost"
"""A name by which an open server is called without a setting."""


@contextmanager
def process(*command: object, folder: Path) -> Iterator[None]:
    with (folder / "log").open("wb") as log:
        started = subprocess.Popen(
            [str(part) for part in command],
            stdout=log,
            stderr=log,
            env={"HOME": str(folder), "PATH": "/usr/sbin:/usr/bin:/sbin:/bin"},
        )
    try:
        yield
    finally:
        started.terminate()
        started.wait(30)


def replaced(text: str, *pairs: tuple[str, str]) -> str:
    """A configuration with what a machine's own is; each has to be there."""
    for old, new in pairs:
        assert re.search(old, text, re.MULTILINE), f"{old} is not in the file"
        text = re.sub(old, new, text, flags=re.MULTILINE)
    return text


@contextmanager
def nginx(folder: Path, server: Server, port: int) -> Iterator[Path]:
    """nginx with a certificate of its own; gives the certificate to trust."""
    program = shutil.which("nginx", path="/usr/sbin:/usr/bin")
    openssl = shutil.which("openssl")
    if program is None or openssl is None:
        pytest.skip("there is no nginx or no openssl")
    certificate, key = folder / "cert.pem", folder / "key.pem"
    named = ["-subj", f"/CN={OURS}", "-addext", f"subjectAltName=DNS:{OURS}"]
    files = ["-keyout", str(key), "-out", str(certificate)]
    subprocess.run(
        [openssl, "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", *named, *files],
        check=True,
        capture_output=True,
        timeout=60,
    )
    site = replaced(
        (DEPLOY / "nginx.conf").read_text(),
        (r"/etc/ssl/llmhost/fullchain\.pem", str(certificate)),
        (r"/etc/ssl/llmhost/privkey\.pem", str(key)),
        (r"127\.0\.0\.1:8000", f"127.0.0.1:{server.port}"),
        (r"^ *listen \[::\].*\n", ""),
        (re.escape(NAME), OURS),
        (r"listen 80;", f"listen 127.0.0.1:{free_port()};"),
        (r"listen 443 ", f"listen 127.0.0.1:{port} "),
    )
    (folder / "site.conf").write_text(site)
    paths = " ".join(
        f"{kind}_temp_path {folder}/{kind};"
        for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    (folder / "nginx.conf").write_text(
        f"daemon off; pid {folder}/pid; error_log stderr; worker_processes 1; events {{}}\n"
        f"http {{ access_log off; {paths} include {folder}/site.conf; }}\n"
    )
    command = [program, "-e", "stderr", "-p", folder, "-c", folder / "nginx.conf"]
    tried = subprocess.run([*map(str, command), "-t"], capture_output=True, text=True, check=False)
    assert tried.returncode == 0, tried.stderr
    with process(*command, folder=folder):
        yield certificate


@contextmanager
def caddy(folder: Path, server: Server, port: int) -> Iterator[Path]:
    """Caddy with an authority of its own instead of one that it would have to reach."""
    program = shutil.which("caddy")
    if program is None:
        pytest.skip("there is no caddy")
    site = replaced(
        (DEPLOY / "Caddyfile").read_text(),
        (rf"^{re.escape(NAME)} {{", f"https://{OURS}:{port} {{\n\ttls internal\n\tbind 127.0.0.1"),
        (r"127\.0\.0\.1:8000", f"127.0.0.1:{server.port}"),
    )
    own = "{\n\tadmin off\n\tauto_https disable_redirects\n\tskip_install_trust\n}\n"
    (folder / "Caddyfile").write_text(own + site)
    command = [program, "run", "--adapter", "caddyfile", "--config", folder / "Caddyfile"]
    with process(*command, folder=folder):
        root = folder / ".local/share/caddy/pki/authorities/local/root.crt"
        wait_for(root.is_file, "caddy made no authority")
        yield root


def reached(port: int, trusted: Path) -> httpx.Client:
    context = ssl.create_default_context(cafile=str(trusted))
    return httpx.Client(base_url=f"https://{OURS}:{port}", verify=context, timeout=60.0)


Proxy = Callable[[Path, Server, int], AbstractContextManager[Path]]


@pytest.mark.parametrize("proxy", [nginx, caddy])
def test_a_proxy_passes_streams_on_as_they_come_and_keeps_operations_to_itself(
    server: Server, tmp_path: Path, proxy: Proxy
) -> None:
    port = free_port()
    with proxy(tmp_path, server, port) as trusted, reached(port, trusted) as client:

        def answers() -> bool:
            try:
                answer = client.get("/health")
            except httpx.TransportError:
                return False
            return answer.status_code == 200

        wait_for(answers, f"the proxy doesn't answer: {(tmp_path / 'log').read_text()}")
        body = {"model": DEFAULT_MODEL, "prompt": "Once", "stream": True}
        body |= {"max_tokens": 2000, "ignore_eos": True}  # longer than anything that looks
        key = ("num_requests_running", "")

        def events_at_first() -> int:
            with client.stream("POST", "/v1/completions", json=body) as answer:
                assert answer.status_code == 200
                pieces = answer.iter_raw()  # held: the answer is closed when it is collected
                first = next(pieces)
                assert first.startswith(b"data: ")
                wait_for(lambda: scrape(server)[key], "the rest is being made while this is read")
            wait_for(lambda: scrape(server)[key] == 0, "a client that goes ends its generation")
            return first.count(b"data: ")

        assert least(events_at_first, 5) < 5, "something collects them: a buffer holds 4 kB or more"
        for path in ("/metrics", "/health/ready", "/health/live"):
            assert client.get(path).status_code == 404, path
