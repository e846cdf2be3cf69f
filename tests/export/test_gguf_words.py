"""Words of each pre-tokenizer, and SentencePiece's own encodings."""

import json
from pathlib import Path

import pytest
from tokenizers import Regex
from tokenizers import pre_tokenizers as pre

from export.errors import SourceUnusable
from export.gguf_tokenizer import tokenizer_from_gguf
from export.gguf_words import SPLITTINGS

TEXT = "It'S 12345 camelCase HTTPServer's a/b//\n\n  x^2 e\u0301é 日本の。한\t `z`"
WORDS = {
    "default":
        (
            "It¦'¦S¦ ¦123¦45¦ camelCase¦ HTTPServer¦'¦s"
            "¦ a¦/¦b¦//¦\n\n ¦ x¦^¦2¦ e¦\u0301¦é¦ 日本の¦。¦한¦\t¦ `¦z¦`"
        ),
    "gpt-2 phi-2 mpt olmo gigachat a.x-4.0 mellum":
        (
            "It¦'¦S¦ 12345¦ camelCase¦ HTTPServer¦'s"
            "¦ a¦/¦b¦//¦\n\n ¦ x¦^¦2¦ e¦\u0301¦é¦ 日本の¦。¦한¦\t¦ `¦z¦`"
        ),
    "smollm starcoder refact command-r codeshell exaone minerva-7b":
        (
            "It¦'¦S¦ ¦1¦2¦3¦4¦5¦ camelCase¦ HTTPServer¦'s"
            "¦ a¦/¦b¦//¦\n\n ¦ x¦^¦2¦ e¦\u0301¦é¦ 日本の¦。¦한¦\t¦ `¦z¦`"
        ),
    "llama-bpe llama3 llama-v3 falcon3 pixtral smaug-bpe dbrx chatglm-bpe":
        (
            "It¦'S¦ ¦123¦45¦ camelCase¦ HTTPServer¦'s"
            "¦ a¦/b¦//\n\n¦ ¦ x¦^¦2¦ e¦\u0301é¦ 日本の¦。한¦\t¦ `¦z¦`"
        ),
    "qwen2 deepseek-r1-qwen stablelm2 hunyuan megrez":
        (
            "It¦'S¦ ¦1¦2¦3¦4¦5¦ camelCase¦ HTTPServer¦'s"
            "¦ a¦/b¦//\n\n¦ ¦ x¦^¦2¦ e¦\u0301é¦ 日本の¦。한¦\t¦ `¦z¦`"
        ),
    "qwen35":
        (
            "It¦'S¦ ¦1¦2¦3¦4¦5¦ camelCase¦ HTTPServer¦'s"
            "¦ a¦/b¦//\n\n¦ ¦ x¦^¦2¦ e\u0301é¦ 日本の¦。한¦\t¦ `¦z¦`"
        ),
    "tekken":
        (
            "It¦'S¦ ¦1¦2¦3¦4¦5¦ camel¦Case¦ HTTPServer¦'s"
            "¦ a¦/b¦//\n\n¦ ¦ x¦^¦2¦ e\u0301é¦ 日本の¦。한¦\t¦ `¦z¦`"
        ),
    "gpt-4o llama4":
        (
            "It'S¦ ¦123¦45¦ camel¦Case¦ HTTPServer's"
            "¦ a¦/b¦//\n\n¦ ¦ x¦^¦2¦ e\u0301é¦ 日本の¦。한¦\t¦ `¦z¦`"
        ),
    "deepseek-v3 hunyuan-dense":
        (
            "It¦'S¦ ¦123¦45¦ camelCase¦ HTTPServer¦'s"
            "¦ a¦/b¦//\n\n¦ ¦ x¦^¦2¦ e\u0301é¦ ¦日本の¦。¦한¦\t¦ `¦z¦`"
        ),
    "deepseek-coder":
        (
            "It¦'¦S¦ ¦1¦2¦3¦4¦5¦ camelCase¦ HTTPServer¦'¦s"
            "¦ a¦/¦b¦//¦\n¦\n¦ ¦ x¦^¦2¦ e¦\u0301¦é¦ ¦日本の¦。¦한¦\t `¦z¦`"
        ),
    "falcon":
        (
            "It¦'¦S¦ ¦123¦45¦ camelCase¦ HTTPServer¦'¦s"
            "¦ a¦/¦b¦//¦\n\n ¦ x¦^¦2¦ e¦\u0301¦é¦ 日本の¦。¦한¦\t ¦`¦z¦`"
        ),
    "bloom":
        (
            "It'S¦ 12345¦ camelCase¦ HTTPServer's"
            "¦ a/b//¦\n\n ¦ x^2¦ e\u0301é¦ 日本の¦。¦한¦\t¦ `z`"
        ),
}  # fmt: skip
"""Pre-tokenizers → the text's words, with ¦ between them. Read off llama.cpp's patterns by hand."""
PIECES = json.loads(Path(__file__).with_name("sentencepiece.json").read_text())
FIELDS = {
    "tokenizer.ggml.model": "llama",
    "tokenizer.ggml.tokens": PIECES["tokens"],
    "tokenizer.ggml.scores": PIECES["scores"],
    "tokenizer.ggml.token_type": PIECES["types"],
    "tokenizer.ggml.bos_token_id": 1,
    "tokenizer.ggml.eos_token_id": 2,
    "tokenizer.ggml.unknown_token_id": 0,
    "tokenizer.ggml.add_bos_token": False,
}


def test_every_pre_tokenizer_has_known_words() -> None:
    assert {name for names in WORDS for name in names.split()} == SPLITTINGS.keys()


@pytest.mark.parametrize("names", WORDS)
def test_words_are_those_of_the_patterns(names: str) -> None:
    for name in names.split():
        splits = [pre.Split(Regex(w), behavior="isolated") for w in SPLITTINGS[name].words]
        found = [word for word, _ in pre.Sequence(splits).pre_tokenize_str(TEXT)]
        assert "¦".join(found) == WORDS[names], name


def test_pieces_are_sentencepieces_own() -> None:
    tokenizer = tokenizer_from_gguf(FIELDS)
    assert len(PIECES["encodings"]) > 20
    for text, ids in PIECES["encodings"]:
        assert tokenizer.encode(text).ids == ids, text
        assert tokenizer.decode(ids, skip_special_tokens=False) == text


def test_pieces_without_a_leading_space_if_the_file_says_so() -> None:
    tokenizer = tokenizer_from_gguf({**FIELDS, "tokenizer.ggml.add_space_prefix": False})
    first = tokenizer.encode("the").tokens[0]
    assert not first.startswith("\u2581")
    assert tokenizer.decode(tokenizer.encode(" a b").ids) == " a b"


def test_pieces_begin_with_a_bos_unless_the_file_says_otherwise() -> None:
    silent = {k: v for k, v in FIELDS.items() if k != "tokenizer.ggml.add_bos_token"}
    assert tokenizer_from_gguf(silent).encode("a").ids[0] == 1
    assert tokenizer_from_gguf(FIELDS).encode("a").ids[0] != 1


def test_control_and_user_defined_pieces_are_whole() -> None:
    tokens = tokenizer_from_gguf(FIELDS).encode("<turn>hi<tool>").tokens
    assert tokens[0] == "<turn>"
    assert tokens[-1] == "<tool>"


@pytest.mark.parametrize("scores", [None, [0.0], "many"])
def test_pieces_without_scores_are_refused(scores: object) -> None:
    fields = {**FIELDS, "tokenizer.ggml.scores": scores}
    if scores is None:
        del fields["tokenizer.ggml.scores"]
    with pytest.raises(SourceUnusable, match=r"tokenizer\.ggml\.scores"):
        tokenizer_from_gguf(fields)
