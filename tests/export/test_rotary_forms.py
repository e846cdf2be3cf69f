import pytest
import torch
from transformers.models.deepseek_v2 import modeling_deepseek_v2
from transformers.models.llama4 import modeling_llama4
from transformers.models.phimoe.modeling_phimoe import PhimoeRotaryEmbedding

from export.observe import observe
from export.reach import context_length
from export.rotary_forms import real_rotations, traceable
from tests.export.tiny import MIXTURES, make_model

TOKENS, HEADS = 5, 3


@pytest.mark.parametrize(
    ("namespace", "shape"),
    [
        (modeling_llama4, (2, TOKENS, HEADS, 16)),
        (modeling_deepseek_v2, (2, HEADS, TOKENS, 16)),
    ],
    ids=["tokens-first", "heads-first"],
)
def test_real_rotation_is_the_complex_one(namespace: object, shape: tuple[int, ...]) -> None:
    rotary = modeling_llama4.Llama4TextRotaryEmbedding(MIXTURES["llama4"]())
    if namespace is modeling_deepseek_v2:
        config = modeling_deepseek_v2.DeepseekV2Config(qk_rope_head_dim=16)
        rotary = modeling_deepseek_v2.DeepseekV2RotaryEmbedding(config)
    rotary.attention_scaling = 1.25
    query, key = torch.randn(2, *shape, generator=torch.Generator().manual_seed(0))
    positions = torch.arange(7, 7 + TOKENS).expand(2, -1)

    def rotated() -> list[torch.Tensor]:
        powers = rotary(query, positions)
        return [*namespace.apply_rotary_emb(query, key, powers), powers]  # type: ignore[attr-defined]

    *wanted, powers = rotated()
    assert powers.is_complex()
    with real_rotations([rotary]):
        *found, powers = rotated()
    assert not powers.is_complex()
    for ours, theirs in zip(found, wanted, strict=True):
        assert (ours - theirs).abs().max() < 1e-6
    assert (wanted[0] - query).abs().max() > 1, "they must turn"
    assert rotated()[-1].is_complex(), "as it was"


def test_tables_are_as_long_as_the_context_whatever_the_step() -> None:
    rotary = PhimoeRotaryEmbedding(MIXTURES["phimoe"]())
    x = torch.zeros(1)
    wanted = rotary(x, seq_len=50)
    assert rotary(x, seq_len=3)[0].shape[0] == 3, "as long as the step"
    with traceable([rotary], 50):
        for found, theirs in zip(rotary(x, seq_len=3), wanted, strict=True):
            assert torch.equal(found, theirs)


def test_context_ends_where_llama_4_attends_in_chunks() -> None:
    config = MIXTURES["llama4"]()
    assert (config.max_position_embeddings, config.attention_chunk_size) == (192, 100)
    assert context_length(config) == 100
    config.floor_scale = 90
    assert context_length(config) == 89
    assert observe(make_model(config)).context_length == 89
