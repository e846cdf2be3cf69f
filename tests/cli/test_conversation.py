"""The /commands of `llmhost chat`."""

import re
from pathlib import Path

import pytest

from app.cli.answerer import Sampling, Turn
from app.cli.asking import printable
from app.cli.conversation import COMMANDS, Conversation
from app.cli.models import full_name


@pytest.fixture
def conversation() -> Conversation:
    chat = Conversation("Be brief.", Sampling())
    chat.turns += [Turn("user", "Hi"), Turn("assistant", "Hello")]
    return chat


def test_help_names_every_command(conversation):
    named = re.findall(r"^  /(\w+)", conversation.command("/help").text, re.MULTILINE)
    assert named == list(COMMANDS)
    assert "there is no /hlep" in conversation.command("/hlep").text


def test_the_system_prompt_goes_before_the_turns_and_can_be_taken_away(conversation):
    assert conversation.asked[0] == Turn("system", "Be brief.")
    assert conversation.command("/system Be a pirate.").text == "system prompt set"
    assert conversation.asked[0] == Turn("system", "Be a pirate.")
    conversation.command("/system -")
    assert conversation.asked == conversation.turns


def test_undo_takes_a_question_with_its_answer_and_retry_the_answer_alone(conversation):
    assert conversation.command("/retry").then == "answer"
    assert conversation.turns == [Turn("user", "Hi")]
    conversation.command("/undo")
    assert conversation.turns == []
    assert conversation.command("/retry").then == "read"


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("/set temperature 0", "temperature is 0.0"),
        ("/set max_tokens 5", "max_tokens is 5"),
        ("/set seed x", "seed can't be 'x'"),
        ("/set temperature 9", "temperature can't be '9': expected `float` <= 2.0"),
        ("/set max_tokens 0", "max_tokens can't be '0': expected `int` >= 1"),
        ("/set heat 1", "there is no 'heat', there are temperature, top_p, max_tokens, seed"),
    ],
)
def test_sampling_is_set_or_refused(conversation, line, said):
    assert conversation.command(line).text == said


def test_a_chat_is_saved_and_loaded(conversation, tmp_path: Path):
    file = tmp_path / "chat.json"
    assert conversation.command(f"/save {file}").text == f"saved 2 turns in {file}"
    other = Conversation(None, Sampling())
    assert other.command(f"/load {file}").text == "2 turns"
    assert other.asked == conversation.asked
    file.write_text("[]")
    assert "is no chat that /save wrote" in other.command(f"/load {file}").text
    assert "can't be read" in other.command("/load nowhere").text
    assert other.asked == conversation.asked


def test_a_model_is_meant_by_the_end_of_its_name_where_only_one_has_it():
    names = ["a/Small", "b/Small", "b/Large"]
    assert full_name("large", names) == "b/Large"
    assert full_name("Small", names) == "Small"
    assert full_name("b/Small", names) == "b/Small"


def test_a_models_text_does_not_steer_the_terminal():
    assert printable("a\x1b[31mb\x07\n\tc\x9b\u00e9😀") == "a[31mb\n\tcé😀"
