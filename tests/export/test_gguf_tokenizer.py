from pathlib import Path

import pytest
from tokenizers import Tokenizer, pre_tokenizers

from export.errors import SourceUnusable
from export.gguf_tokenizer import end_ids, tokenizer_from_gguf

DEFAULT = Path("models/HuggingFaceTB--SmolLM2-135M-Instruct/tokenizer.json")
BYTES = sorted(pre_tokenizers.ByteLevel.alphabet())
CONTROLS = ["<|bos|>", "<|im_start|>", "<|im_end|>"]
METADATA = {
    "tokenizer.ggml.model": "gpt2",
    "tokenizer.ggml.pre": "smollm",
    "tokenizer.ggml.tokens": [*CONTROLS, *BYTES, "12", "Ġ1", "ab", "<u>"],
    "tokenizer.ggml.token_type": [3, 3, 3, *[1] * len(BYTES), 1, 1, 1, 4],
    "tokenizer.ggml.merges": ["1 2", "Ġ 1", "a b"],
    "tokenizer.ggml.bos_token_id": 0,
    "tokenizer.ggml.eos_token_id": 2,
    "tokenizer.ggml.add_bos_token": False,
}  # fmt: skip


def test_smollm_splits_digits_one_by_one() -> None:
    assert tokenizer_from_gguf(METADATA).encode("12 1ab").tokens == ["1", "2", "Ġ", "1", "ab"]


def test_gpt2_keeps_digits_together() -> None:
    plain = tokenizer_from_gguf({**METADATA, "tokenizer.ggml.pre": "gpt-2"})
    assert plain.encode("12 1ab").tokens == ["12", "Ġ1", "ab"]


def test_bos_is_prepended_only_if_the_file_says_so() -> None:
    assert tokenizer_from_gguf(METADATA).encode("ab").tokens == ["ab"]
    adding = tokenizer_from_gguf({**METADATA, "tokenizer.ggml.add_bos_token": True})
    assert adding.encode("ab").tokens == ["<|bos|>", "ab"]


def test_control_tokens_are_special_and_user_defined_ones_are_text() -> None:
    tokenizer = tokenizer_from_gguf(METADATA)
    encoded = tokenizer.encode("<|im_start|>ab<u><|im_end|>")
    assert encoded.tokens == ["<|im_start|>", "ab", "<u>", "<|im_end|>"]
    assert tokenizer.decode(encoded.ids) == "ab<u>"


def test_every_byte_survives_a_round_trip() -> None:
    text = "".join(chr(c) for c in range(1, 0x250)) + "😀 ☃ 你好"
    tokenizer = tokenizer_from_gguf(METADATA)
    assert tokenizer.decode(tokenizer.encode(text).ids) == text


def test_end_ids_are_the_end_of_sequence_first_then_ends_of_turn() -> None:
    assert end_ids(METADATA) == (2,)
    both = {**METADATA, "tokenizer.ggml.eot_token_id": 5, "tokenizer.ggml.eom_token_id": 2}
    assert end_ids(both) == (2, 5)


@pytest.mark.parametrize(
    ("field", "value"), [("tokenizer.ggml.model", "t5"), ("tokenizer.ggml.pre", "superbpe")]
)
def test_unknown_tokenizer_is_refused_by_name(field: str, value: str) -> None:
    with pytest.raises(SourceUnusable, match=value):
        tokenizer_from_gguf({**METADATA, field: value})


@pytest.mark.skipif(not DEFAULT.is_file(), reason="the default model is not exported")
@pytest.mark.parametrize(
    ("text", "ids"),
    [
        ("Hello world", [19556, 905]),
        ("<|im_start|>user\nHi<|im_end|>\n", [1, 4093, 198, 26843, 2, 198]),
        ("In 2019", [788, 216, 34, 32, 33, 41]),
        ("It's", [1589, 506]),
    ],
)
def test_default_model_has_the_known_encodings(text: str, ids: list[int]) -> None:
    tokenizer = Tokenizer.from_file(str(DEFAULT))
    assert tokenizer.encode(text).ids == ids
    assert tokenizer.decode(ids, skip_special_tokens=False) == text
