import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.contract.tokens import PromptToken, TokenLogprob
from app.engine.sequence import ScoredToken
from app.generation.token_text import TokenTexts
from tests.generation.test_detokenizer import TOKENIZERS, fox_ids

BYTE_LEVEL, BYTE_FALLBACK = TOKENIZERS["byte-level"], TOKENIZERS["byte-fallback"]


@pytest.mark.parametrize("name", ["byte-level", "byte-fallback"])
@given(text=st.text(st.sampled_from("a é日😀\n 👩‍🚀"), max_size=12))
def test_the_bytes_of_a_texts_tokens_are_the_texts(name, text):
    tokenizer = TOKENIZERS[name]
    texts = TokenTexts(tokenizer)
    ids = tokenizer.encode(text, add_special_tokens=False).ids
    spelled = b"".join(map(texts.bytes_of, ids)).decode()
    assert spelled == (f" {text}" if text and name == "byte-fallback" else text), (
        "with Llama 2's space"
    )


@pytest.mark.parametrize("name", ["byte-level", "byte-fallback"])
def test_a_part_of_a_character_is_its_bytes_and_a_replacement(name):
    tokenizer = TOKENIZERS[name]
    part = fox_ids(tokenizer)[0]
    token = TokenTexts(tokenizer).logprob(ScoredToken(part, -1.5))
    assert token.bytes
    assert "🦊".encode().startswith(token.bytes)
    assert token.text == "\ufffd"


def test_special_and_added_tokens_spell_themselves():
    for token in ("</s>", "<tool>"):
        assert TokenTexts(BYTE_LEVEL).bytes_of(BYTE_LEVEL.token_to_id(token)) == token.encode()
    space = BYTE_FALLBACK.token_to_id("▁the")
    assert TokenTexts(BYTE_FALLBACK).bytes_of(space) == b" the"


def test_another_kind_of_vocabulary_spells_what_a_token_alone_decodes_to():
    tokenizer = TOKENIZERS["metaspace"]
    assert TokenTexts(tokenizer).bytes_of(tokenizer.token_to_id("the")) == b"the"


def test_an_id_beyond_the_vocabulary_spells_nothing():
    for tokenizer in TOKENIZERS.values():
        assert TokenTexts(tokenizer).bytes_of(tokenizer.get_vocab_size() + 3) == b""


def test_the_likeliest_stay_in_their_order():
    a, b = (BYTE_LEVEL.token_to_id(letter) for letter in "ab")
    token = TokenTexts(BYTE_LEVEL).logprob(ScoredToken(a, -2.0, ((b, -0.5), (a, -2.0))))
    assert token == TokenLogprob(
        a, "a", b"a", -2.0, (TokenLogprob(b, "b", b"b", -0.5), TokenLogprob(a, "a", b"a", -2.0))
    )


def test_a_prompts_first_token_has_no_logprob():
    a, b = (BYTE_LEVEL.token_to_id(letter) for letter in "ab")
    assert tuple(TokenTexts(BYTE_LEVEL).prompt([a, b], (ScoredToken(b, -1.0),))) == (
        PromptToken(a, "a", b"a", None),
        PromptToken(b, "b", b"b", -1.0, (), 1),
    )
