"""API keys across processes: made and revoked by the command line while a server runs."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.scripted_app import FIRST, write_models
from tests.e2e.server import ROOT, Server, running_server


@pytest.fixture
def closed(tmp_path: Path) -> Iterator[Server]:
    write_models(tmp_path / "models")
    settings = {"models_dir": tmp_path / "models", "model": FIRST, "require_auth": "true"}
    with running_server(tmp_path / "data", context_length=128, slots=2, **settings) as running:
        yield running


def operator(folder: Path, *arguments: str) -> str:
    """What `python -m app …` prints on its standard output."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("LLMHOST_")}
    done = subprocess.run(
        [sys.executable, "-m", "app", *arguments],
        cwd=ROOT,
        env=environment | {"LLMHOST_DATA_DIR": str(folder)},
        input="testpassword\n",
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_key_of_the_command_line_works_until_it_is_revoked_and_is_written_nowhere(
    closed: Server, tmp_path: Path
):
    folder = tmp_path / "data"
    operator(folder, "users", "create", "ada")
    key = operator(folder, "keys", "create", "ada", "ci").strip()
    headers = {"Authorization": f"Bearer {key}"}
    prompt = {"prompt": "Hi", "max_length": 3}
    with closed.client() as client:
        assert client.post("/generate", json=prompt).status_code == 401
        assert client.post("/generate", json=prompt, headers=headers).status_code == 200
        assert client.post("/me/keys", json={"name": "x"}, headers=headers).status_code == 403
        [line] = operator(folder, "keys", "list", "ada").splitlines()
        key_id, name, *_ = line.split("\t")
        assert name == "ci"
        operator(folder, "keys", "revoke", "ada", key_id)
        refused = client.post("/generate", json=prompt, headers=headers)
        assert refused.status_code == 401
        assert refused.headers["www-authenticate"] == "Bearer"
        assert refused.json() == {"detail": "invalid API key"}
    written = [path for path in folder.rglob("*") if path.is_file()]
    assert {"server.log", "llmhost.db"} <= {path.name for path in written}
    assert not [path for path in written if key[-30:-4].encode() in path.read_bytes()]
