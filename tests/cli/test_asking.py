"""What `run` and `ps` say of input and servers that are not theirs."""

import io
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from app.cli.main import main
from app.cli.outcome import Exit


class Page(BaseHTTPRequestHandler):
    """Another server: a page at /models/…, nothing elsewhere."""

    def do_GET(self) -> None:
        found = self.path.startswith("/models/")
        self.send_response(200 if found else 404)
        self.end_headers()
        self.wfile.write(b"<html>\n<p>welcome</p>\n</html>\n")

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def another() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Page)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.mark.parametrize("arguments", [("ps",), ("run", "m", "hi")])
def test_another_server_is_said_in_one_line(another, arguments, capsys, monkeypatch):
    monkeypatch.setattr("sys.stdin", io.StringIO())
    assert main([*arguments, "--url", another]) == Exit.FAILED
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert f"what answers at {another}" in err
    assert "is no server of this project: name one with --url" in err


@pytest.mark.parametrize("errors", ["strict", "surrogateescape"])
def test_bytes_that_are_no_text_are_refused(errors, capsys, monkeypatch):
    piped = io.TextIOWrapper(io.BytesIO(b"caf\xe9"), encoding="utf-8", errors=errors)
    monkeypatch.setattr("sys.stdin", piped)
    assert main(["run", "m", "hi", "--url", "http://127.0.0.1:1"]) == Exit.USAGE
    assert "the prompt is no UTF-8 text" in capsys.readouterr().err
