import io
from pathlib import Path

import pytest

from app.__main__ import main
from app.auth.keys import FILE_NAME


@pytest.fixture(autouse=True)
def settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setenv("LLMHOST_DATA_DIR", str(tmp_path))
    monkeypatch.setenv("LLMHOST_ARGON2_MEMORY_KIB", "64")
    monkeypatch.setenv("LLMHOST_REGISTRATION", "closed")


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    def run(*arguments: str, password: str = "testpassword") -> tuple[int, str, str]:
        monkeypatch.setattr("sys.stdin", io.StringIO(f"{password}\n"))
        status = main(arguments)
        return status, *capsys.readouterr()

    return run


def test_users_are_created_listed_promoted_and_reset(run):
    assert run("users", "create", "ada") == (0, "created user=ada role=user\n", "")
    assert run("users", "create", "Bob", "--admin") == (0, "created user=Bob role=admin\n", "")
    assert run("users", "promote", "ADA") == (0, "promoted user=ada role=admin\n", "")
    assert run("users", "promote", "bob", "--role", "user")[0] == 0
    status, out, _ = run("users", "list")
    assert (status, [line.split("\t")[:2] for line in out.splitlines()]) == (
        0,
        [["ada", "admin"], ["Bob", "user"]],
    )
    assert run("users", "reset-password", "ada", password="newpassword") == (
        0,
        "reset user=ada\n",
        "",
    )


@pytest.mark.parametrize(
    ("arguments", "password", "words"),
    [
        (("users", "create", "ada"), "testpassword", "Username already taken"),
        (("users", "create", "a b"), "testpassword", "username is 'a b', expected 1 to 64"),
        (("users", "create", "bob"), "short", "password has 5 characters, expected 8 to 1024"),
        (("users", "promote", "nobody"), "", "username is 'nobody', expected the name of a user"),
    ],
)
def test_what_cannot_be_done_is_said_in_one_line(run, arguments, password, words):
    run("users", "create", "Ada")
    status, out, err = run(*arguments, password=password)
    assert (status, out) == (1, "")
    assert err.startswith(words)
    assert err.count("\n") == 1


def test_secrets_rotate(run, tmp_path: Path):
    run("users", "list")
    before = (tmp_path / FILE_NAME).read_text().splitlines()
    assert run("secrets", "rotate")[0] == 0
    after = (tmp_path / FILE_NAME).read_text().splitlines()
    assert len(before) == 1
    assert after[1:] == before
