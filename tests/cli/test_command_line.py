"""The commands as a tree: what each says of itself, and how a wrong command line ends."""

import os
import subprocess
import sys
from importlib.metadata import version

import click
import pytest

from app.cli.lazy import LazyGroup
from app.cli.main import HIDDEN, llmhost, main
from app.cli.outcome import Exit


def commands(group: click.Group) -> dict[str, click.Command]:
    context = click.Context(group)
    found = {name: group.get_command(context, name) for name in group.list_commands(context)}
    assert None not in found.values(), "a name without a command"
    return {name: command for name, command in found.items() if command is not None}


def test_every_command_that_the_help_names_is_there_and_says_what_it_does():
    assert isinstance(llmhost, LazyGroup)
    found = commands(llmhost)
    assert len(found) >= 13, "else this looks in the wrong place"
    for name, command in found.items():
        assert command.help, name
        for argument in command.params:
            assert isinstance(argument, click.Argument) or argument.help, (name, argument.name)
        if isinstance(command, click.Group):
            assert all(inner.help for inner in commands(command).values()), name
    for name in HIDDEN:
        assert llmhost.get_command(click.Context(llmhost), name) is not None


def test_no_setting_is_a_flag_of_two_meanings():
    for name, command in commands(llmhost).items():
        flags = [flag for parameter in command.params for flag in parameter.opts]
        assert len(flags) == len(set(flags)), name


def test_the_version_is_shown_and_nothing_of_the_server_is_imported_for_it():
    code = (
        "import sys; from app.cli.main import main; status = main(['--version']); "
        "print(status, sorted({n.split('.')[0] for n in sys.modules} & "
        "{'litestar', 'onnxruntime', 'granian', 'numpy', 'rich', 'httpx', 'msgspec', 'psutil'}))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout == f"llmhost {version('llmhost')}\n0 []\n"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), "Usage: llmhost"),
        (("sevre",), "No such command 'sevre'"),
        (("list", "--nope"), "No such option"),
        (("list", "--set", "slots"), "--set slots: expected NAME=VALUE"),
        (("list", "--set", "slotz=1"), "--set slotz: no such setting; there are host, port, "),
        (("list", "--set", "slots=x"), "--set slots='x': expected int >= 0"),
        (("list", "--config", "nowhere.toml"), "'nowhere.toml': there is no such file"),
        (("ps", "--url", "http://[::1"), "'http://[::1' is no URL"),
        (("ps", "--url", "localhost"), "'localhost' is no URL: it begins as in http://127"),
        (("ps", "--key", "schlüssel"), "keys are made of plain ASCII characters"),
        (("serve", "--port", "70000"), "--port='70000': expected int >= 1 and <= 65535"),
    ],
)
def test_a_wrong_command_line_or_setting_ends_with_2(arguments, words, capsys):
    assert main(arguments) == Exit.USAGE
    assert words in capsys.readouterr().err


def test_settings_show_where_each_stands_and_no_secret(capsys, tmp_path, monkeypatch):
    file = tmp_path / "mine.toml"
    file.write_text("max_waiting = 5\n")
    monkeypatch.setenv("LLMHOST_JWT_SECRET", "s" * 40)
    monkeypatch.setenv("LLMHOST_DATABASE_URL", "postgresql://ada:hush@db/chats")
    assert main(["settings", "--changed", "--config", str(file), "--set", "slots=3"]) == 0
    out = capsys.readouterr().out
    assert [line.split("\t") for line in out.splitlines()] == [
        ["slots", "3", "--set slots"],
        ["max_waiting", "5", f"{file}, line 1: max_waiting"],
        ["database_url", "postgresql://ada:***@db/chats", "LLMHOST_DATABASE_URL"],
        ["jwt_secret", "(set)", "LLMHOST_JWT_SECRET"],
    ]


def test_completion_knows_the_commands():
    done = subprocess.run(
        [sys.executable, "-c", "from app.cli.main import run; run()"],
        env=os.environ
        | {
            "_LLMHOST_COMPLETE": "bash_complete",
            "COMP_WORDS": "llmhost se",
            "COMP_CWORD": "1",
        },
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.stdout.split() == ["plain,serve", "plain,secrets", "plain,settings"]


def test_completion_scripts_are_printed(capsys):
    for shell in ("bash", "zsh", "fish"):
        assert main(["completion", shell]) == 0
        assert "_LLMHOST_COMPLETE" in capsys.readouterr().out
