import functools
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from app.generation.detokenizer import Detokenizer

TEXT = ["the quick brown fox 😀😃 déjà vu", "  two  spaces\n\nnew line", "naïve café 日本語"] * 3
DEFAULT_MODEL = Path("models/HuggingFaceTB--SmolLM2-135M-Instruct/tokenizer.json")


def byte_level() -> Tokenizer:
    """As GPT-2, Llama 3, Qwen, SmolLM2."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=320,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        special_tokens=["<s>", "</s>"],
        show_progress=False,
    )
    tokenizer.train_from_iterator(TEXT, trainer)
    tokenizer.add_tokens(["<tool>"])
    return tokenizer


def byte_fallback() -> Tokenizer:
    """As Llama 2 and Mistral: ▁ for a space, a token for each byte, the first space dropped."""
    words = ["▁", "▁▁", "▁the", "the", "a", "▁a", "é", "▁é", "\ufffd", "日", "\n"]
    names = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), *words]
    vocabulary = {name: number for number, name in enumerate(names)}
    tokenizer = Tokenizer(
        models.BPE(vocab=vocabulary, merges=[], byte_fallback=True, unk_token="<unk>")
    )
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    )
    tokenizer.decoder = decoders.Sequence(
        [
            decoders.Replace("▁", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
    )
    tokenizer.add_special_tokens(["<unk>", "<s>", "</s>"])
    return tokenizer


def metaspace() -> Tokenizer:
    """As T5-like exports: the Metaspace decoder drops every ▁ of the first token."""
    words = ["▁", "▁▁", "▁the", "the", "a", "▁a", "a▁a"]
    vocabulary = {name: number for number, name in enumerate(["<unk>", "</s>", *words])}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[], unk_token="<unk>"))
    tokenizer.decoder = decoders.Metaspace()
    tokenizer.add_special_tokens(["<unk>", "</s>"])
    return tokenizer


TOKENIZERS = {
    "byte-level": byte_level(),
    "byte-fallback": byte_fallback(),
    "metaspace": metaspace(),
}
every_tokenizer = pytest.mark.parametrize("tokenizer", TOKENIZERS.values(), ids=TOKENIZERS)


@functools.cache
def default_tokenizer() -> Tokenizer:
    return Tokenizer.from_file(str(DEFAULT_MODEL))


def pieces_of(tokenizer: Tokenizer, ids: list[int]) -> list[str]:
    detokenizer = Detokenizer(tokenizer)
    return [*(detokenizer.decode(token_id) for token_id in ids), detokenizer.flush()]


@every_tokenizer
@given(data=st.data())
def test_pieces_joined_are_the_whole_decode_of_any_ids(tokenizer, data):
    # 5 beyond the vocabulary: a model's logits may be padded
    ids = data.draw(st.lists(st.integers(0, tokenizer.get_vocab_size() + 5), max_size=30))
    assert "".join(pieces_of(tokenizer, ids)) == tokenizer.decode(ids, skip_special_tokens=True)


@every_tokenizer
@given(data=st.data())
def test_long_runs_of_few_ids_are_decoded_as_the_whole_is(tokenizer, data):
    """Mostly halves of characters and U+FFFD itself: what is never certain at its end."""
    names = ["Ã", "ð", "Ł", "\ufffd", "<0xE6>", "<0x97>", "<0xF0>", "▁", "a", "é"]
    some = [i for i in map(tokenizer.token_to_id, names) if i is not None]
    ids = data.draw(st.lists(st.sampled_from(some), min_size=20, max_size=80))
    assert "".join(pieces_of(tokenizer, ids)) == tokenizer.decode(ids, skip_special_tokens=True)


class Counting:
    """A tokenizer that counts the ids it decodes."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.id_to_token = tokenizer.id_to_token
        self.get_added_tokens_decoder = tokenizer.get_added_tokens_decoder
        self._decode = tokenizer.decode
        self.decoded = 0

    def decode(self, ids: list[int]) -> str:
        self.decoded += len(ids)
        return self._decode(ids)


@pytest.mark.parametrize(
    ("name", "token"),
    [("byte-level", "ð"), ("byte-fallback", "\ufffd"), ("byte-fallback", "<0xF0>")],
)
def test_an_id_is_decoded_a_bounded_number_of_times(name, token):
    tokenizer = Counting(TOKENIZERS[name])
    detokenizer = Detokenizer(tokenizer)
    token_id = TOKENIZERS[name].token_to_id(token)
    text = "".join(detokenizer.decode(token_id) for _ in range(2000)) + detokenizer.flush()
    assert text == "\ufffd" * 2000
    assert tokenizer.decoded < 2000 * 40


@pytest.mark.parametrize("name", ["byte-level", "byte-fallback"])
@given(text=st.text(st.sampled_from("a é日😀\n 👩‍🚀"), max_size=12))
def test_pieces_of_a_real_text_hold_whole_characters(name, text):
    tokenizer = TOKENIZERS[name]
    ids = tokenizer.encode(text, add_special_tokens=False).ids
    pieces = pieces_of(tokenizer, ids)
    assert "".join(pieces) == text
    assert not any("\ufffd" in piece for piece in pieces)


@pytest.mark.parametrize("name", ["byte-level", "byte-fallback"])
def test_half_an_emoji_is_held_back(name):
    tokenizer = TOKENIZERS[name]
    fox = fox_ids(tokenizer)
    detokenizer = Detokenizer(tokenizer)
    assert detokenizer.decode(tokenizer.token_to_id("a")) == "a"
    assert not any(detokenizer.decode(token_id) for token_id in fox[:-1])
    assert detokenizer.decode(fox[-1]) + detokenizer.flush() == "🦊"


def test_half_an_emoji_at_the_end_is_shown_as_one_replacement():
    tokenizer = TOKENIZERS["byte-level"]
    half = fox_ids(tokenizer)[:-1]
    assert pieces_of(tokenizer, half) == [*("" for _ in half), "\ufffd"]


def fox_ids(tokenizer: Tokenizer) -> list[int]:
    """An emoji that no tokenizer here has as one token."""
    a = tokenizer.encode("a", add_special_tokens=False).ids
    ids = tokenizer.encode("a🦊", add_special_tokens=False).ids[len(a) :]
    assert len(ids) > 2, "the emoji must span tokens or this proves nothing"
    return ids


@every_tokenizer
def test_a_special_token_is_no_text_and_breaks_no_space(tokenizer):
    word, end = tokenizer.token_to_id("a"), tokenizer.token_to_id("</s>")
    assert pieces_of(tokenizer, [word, end, word])[:3] == ["a", "", "a"]


def test_a_new_line_from_a_byte_token_waits_for_one_token_only():
    tokenizer = TOKENIZERS["byte-fallback"]
    ids = [tokenizer.token_to_id(token) for token in ("▁a", "<0x0A>", "a", "▁a")]
    assert pieces_of(tokenizer, ids) == ["a", "", "\na", " a", ""]


@pytest.mark.skipif(not DEFAULT_MODEL.exists(), reason="the default model is not exported")
@given(data=st.data())
def test_the_default_model_keeps_the_promise(data):
    tokenizer = default_tokenizer()
    ids = data.draw(st.lists(st.integers(0, tokenizer.get_vocab_size()), max_size=20))
    assert "".join(pieces_of(tokenizer, ids)) == tokenizer.decode(ids, skip_special_tokens=True)
