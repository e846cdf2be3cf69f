"""What the encoders that Transformers lacks are put together from. Knows no model's names.

Modules are named as the published weights are; these are the parts that have the same names.
"""

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn
from torch.nn import functional

from export.encoders.rotary import Rotation


class TokenEmbeddings(nn.Module):
    """A row of each token, and one of the text of a pair that it belongs to."""

    def __init__(self, config: Any) -> None:
        super().__init__()
        self.word_embeddings = nn.Embedding(config.vocab_size, config.hidden_size)
        self.token_type_embeddings = (
            nn.Embedding(config.type_vocab_size, config.hidden_size)
            if config.type_vocab_size
            else None
        )

    def forward(self, input_ids: Tensor, token_type_ids: Tensor | None) -> Tensor:
        """[B, S] → [B, S, hidden_size]; without types, all tokens are of the first text."""
        rows: Tensor = self.word_embeddings(input_ids)
        if self.token_type_embeddings is None:
            return rows
        if token_type_ids is None:
            return rows + self.token_type_embeddings.weight[0]
        typed: Tensor = self.token_type_embeddings(token_type_ids)
        return rows + typed


def seen_by_all(mask: Tensor) -> Tensor:
    """What each token sees: all real tokens, [B, 1, S, S], of a mask [B, S]."""
    return mask.bool()[:, None, None, :].expand(-1, 1, mask.shape[1], -1)


def attend(
    parts: Sequence[Tensor], config: Any, angles: tuple[Tensor, Tensor], seen: Tensor
) -> Tensor:
    """Attend by queries, keys and values, each [B, S, hidden_size]; returns the same."""
    query, key, value = (part.unflatten(2, (config.num_attention_heads, -1)) for part in parts)
    rotation: Rotation = config.rotation
    # by its module, where the tracer's own stands in for it
    attended = functional.scaled_dot_product_attention(
        rotation.turn(query, angles).transpose(1, 2),
        rotation.turn(key, angles).transpose(1, 2),
        value.transpose(1, 2),
        attn_mask=seen,
    )
    return attended.transpose(1, 2).flatten(2)
