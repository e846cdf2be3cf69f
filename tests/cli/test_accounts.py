import io
import json
from pathlib import Path

import pytest

from app.auth.keys import FILE_NAME
from app.cli.main import main


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


@pytest.mark.parametrize("command", [("users", "list"), ("secrets", "rotate")])
def test_a_data_directory_that_is_none_is_said_in_one_line(run, tmp_path: Path, command):
    (tmp_path / "file").touch()
    status, out, err = run(*command, "--data-dir", str(tmp_path / "file"))
    assert (status, out, err.count("\n")) == (1, "", 1)
    assert err.startswith(f"the data directory '{tmp_path / 'file'}' can't be used, ")
    assert err.endswith(": name another with --data-dir\n")


def test_a_database_that_cannot_be_had_is_said_in_one_line(run):
    url = "postgresql://127.0.0.1:1/x"
    status, out, err = run("users", "list", "--set", f"database_url={url}")
    assert (status, out, err.count("\n")) == (1, "", 1)
    assert err.startswith("the database can't be used, ")


@pytest.mark.parametrize(
    ("arguments", "password", "words"),
    [
        (("users", "create", "ada"), "testpassword", "Username already taken"),
        (("users", "create", "a b"), "testpassword", "username is 'a b', expected 1 to 64"),
        (("users", "create", "bob"), "short", "password has 5 characters, expected 8 to 1024"),
        (("users", "promote", "nobody"), "", "username is 'nobody', expected the name of a user"),
        (("keys", "create", "nobody", "x"), "", "username is 'nobody', expected the name of"),
        (("keys", "create", "ada", "a\x1b[2J"), "", r"name is 'a\x1b[2J', expected 1 to 64 print"),
        (
            ("keys", "create", "ada", "x", "--expires-in-days", "3651"),
            "",
            "expires_in_days is 3651, expected 1 to 3650",
        ),
        (("keys", "revoke", "ada", "1"), "", "there is no API key '1'"),
    ],
)
def test_what_cannot_be_done_is_said_in_one_line(run, arguments, password, words):
    run("users", "create", "Ada")
    status, out, err = run(*arguments, password=password)
    assert (status, out) == (1, "")
    assert err.startswith(words)
    assert err.count("\n") == 1


def test_keys_are_created_listed_and_revoked(run):
    run("users", "create", "ada")
    status, secret, err = run("keys", "create", "Ada", "my laptop")
    assert (status, secret.count("\n")) == (0, 1)
    assert secret.startswith("sk-llmhost-")
    assert secret.strip() not in err
    key_id = err.split("id=")[1].split()[0]
    assert err == f"created user=ada id={key_id} expires=never\n"
    _, short_lived, _ = run("keys", "create", "ada", "ci", "--expires-in-days", "1")
    _, listed, _ = run("keys", "list", "ada")
    first, second = [line.split("\t") for line in listed.splitlines()]
    assert first[:3] == [key_id, "my laptop", f"…{secret.strip()[-4:]}"]
    assert (first[4], first[5]) == ("used=never", "expires=never")
    assert (second[1], second[2][1:]) == ("ci", short_lived.strip()[-4:])
    assert second[5].startswith("expires=2")
    assert secret.strip() not in listed

    assert run("keys", "revoke", "ada", key_id) == (0, f"revoked id={key_id}\n", "")
    assert run("keys", "revoke", "ada", key_id)[0] == 1
    assert run("keys", "revoke", "ada", "all") == (0, f"revoked id={second[0]}\n", "")
    assert run("keys", "list", "ada") == (0, "", "")


def test_a_reset_password_leaves_keys_alone(run):
    run("users", "create", "ada")
    run("keys", "create", "ada", "laptop")
    before = run("keys", "list", "ada")
    assert run("users", "reset-password", "ada", password="newpassword")[0] == 0
    assert "laptop" in before[1]
    assert run("keys", "list", "ada") == before


def test_secrets_rotate(run, tmp_path: Path):
    run("users", "list")
    before = (tmp_path / FILE_NAME).read_text().splitlines()
    assert run("secrets", "rotate")[0] == 0
    after = (tmp_path / FILE_NAME).read_text().splitlines()
    assert len(before) == 1
    assert after[1:] == before


def test_lists_are_json_where_that_is_asked_for(run):
    run("users", "create", "ada", "--admin")
    run("keys", "create", "ada", "ci")
    [user] = json.loads(run("users", "list", "--json")[1])
    assert (user["username"], user["role"]) == ("ada", "admin")
    [key] = json.loads(run("keys", "list", "ada", "--json")[1])
    assert (key["name"], key["used"], key["expires"]) == ("ci", None, None)
