"""Alibaba's encoder GTE v1.5, `new` or `gte`: BERT with rotary positions and gated layers.

Transformers 4.57 has none, and its makers ship it as Python, which is never executed. Modules are
named as the published weights are.

Source: Alibaba-NLP/new-impl, modeling.py; text-embeddings-inference, models/gte.rs.
"""

from pathlib import Path
from typing import Any, Final

from torch import Tensor, nn
from torch.nn import functional
from transformers import PretrainedConfig, PreTrainedModel
from transformers.modeling_outputs import BaseModelOutput, SequenceClassifierOutput

from export.encoders.layers import TokenEmbeddings, attend, seen_by_all
from export.encoders.options import Options
from export.encoders.rotary import Rotation

FIXED: Final = {
    "hidden_act": "gelu",
    "layer_norm_type": "layer_norm",
    "position_embedding_type": "rope",
    "logn_attention_scale": False,
}
"""Options that have one value in all published models."""
IDLE: Final = frozenset({"logn_attention_clip1", "unpad_inputs", "use_memory_efficient_attention"})
"""Options of kernels, and of a scale of attention that is refused."""


class GteConfig(PretrainedConfig):
    """What the modules are made from."""

    model_type = "gte"


def read_gte(folder: Path) -> PretrainedConfig:
    """Read a GTE model's configuration.

    Raises:
        SourceUnusable: an option is damaged.
        UnsupportedModel: an option is not supported.
    """
    options = Options(folder)
    for name, value in FIXED.items():
        options.only(name, value)
    hidden, heads = options.whole("hidden_size"), options.whole("num_attention_heads")
    if hidden % (2 * heads):
        raise options.refusal(
            "num_attention_heads", heads, f"which doesn't divide hidden_size, {hidden}, evenly"
        )
    options.only("head_dim", hidden // heads)
    config = GteConfig(
        **options.common,
        hidden_size=hidden,
        num_attention_heads=heads,
        num_hidden_layers=options.whole("num_hidden_layers"),
        intermediate_size=options.whole("intermediate_size"),
        vocab_size=options.whole("vocab_size"),
        type_vocab_size=options.whole("type_vocab_size", default=1, least=0),
        max_position_embeddings=options.whole("max_position_embeddings"),
        layer_norm_eps=options.number("layer_norm_eps", default=1e-12),
        packed=options.flag("pack_qkv", default=True),
    )
    config.model_type = options.kind
    config.rotation = _rotation(options, hidden // heads)
    options.refuse_others(IDLE)
    return config


def _rotation(options: Options, head_dim: int) -> Rotation:
    options.only("rope_parameters.rope_type", "default")
    theta = options.number("rope_theta", "rope_parameters.rope_theta")
    kind = options.value("rope_scaling.type", "rope_scaling.rope_type")
    if kind in (None, "default"):
        return Rotation(head_dim, theta)
    if kind != "ntk":
        raise options.refusal("rope_scaling.type", kind, "only 'ntk' is supported")
    factor = options.number("rope_scaling.factor")
    if factor < 1:
        raise options.refusal("rope_scaling.factor", factor, "at least 1 is expected")
    return Rotation(head_dim, theta, scale=factor)


class GteModel(PreTrainedModel):
    """`input_ids` and `attention_mask`, and perhaps `token_type_ids`, in; hidden states out."""

    config_class = GteConfig
    base_model_prefix = "new"
    _supports_sdpa = True

    def __init__(self, config: Any, *, pooled: bool = False) -> None:
        super().__init__(config)
        self.embeddings = GteEmbeddings(config)
        self.encoder = GteLayers(config)
        if pooled:
            self.pooler = GtePooler(config)
        self.post_init()  # type: ignore[no-untyped-call]

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor | None = None
    ) -> BaseModelOutput:
        """Compute the hidden states [B, S, hidden_size] of tokens [B, S]."""
        states = self.embeddings(input_ids, token_type_ids)
        angles = self.config.rotation.angles(attention_mask)
        seen = seen_by_all(attention_mask)
        states = self.encoder(states, angles, seen)
        return BaseModelOutput(last_hidden_state=states)


class GteForScoring(PreTrainedModel):
    """A cross-encoder: a score of each row of pairs."""

    config_class = GteConfig
    base_model_prefix = "new"
    _supports_sdpa = True

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        setattr(self, self.base_model_prefix, GteModel(config, pooled=True))
        self.classifier = nn.Linear(config.hidden_size, config.num_labels)
        self.post_init()  # type: ignore[no-untyped-call]

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor | None = None
    ) -> SequenceClassifierOutput:
        """Compute the scores [B, num_labels] of tokens [B, S]."""
        encoder: Any = self.base_model
        states = encoder(input_ids, attention_mask, token_type_ids).last_hidden_state
        return SequenceClassifierOutput(logits=self.classifier(encoder.pooler(states)))


class GteEmbeddings(TokenEmbeddings):
    """Normalised embeddings."""

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.LayerNorm = nn.LayerNorm(config.hidden_size, config.layer_norm_eps)

    def forward(self, input_ids: Tensor, token_type_ids: Tensor | None) -> Tensor:
        """[B, S] → [B, S, hidden_size]."""
        made: Tensor = self.LayerNorm(super().forward(input_ids, token_type_ids))
        return made


class GtePooler(nn.Module):
    """The first token's state, once more through a layer."""

    def __init__(self, config: Any) -> None:
        super().__init__()
        self.dense = nn.Linear(config.hidden_size, config.hidden_size)

    def forward(self, states: Tensor) -> Tensor:
        """[B, S, hidden_size] → [B, hidden_size]."""
        made: Tensor = self.dense(states[:, 0]).tanh()
        return made


class GteLayers(nn.Module):
    """All layers, under the name that the weights have for them."""

    def __init__(self, config: Any) -> None:
        super().__init__()
        layers = (GteLayer(config) for _ in range(config.num_hidden_layers))
        self.layer = nn.ModuleList(layers)

    def forward(self, states: Tensor, angles: tuple[Tensor, Tensor], seen: Tensor) -> Tensor:
        """[B, S, hidden_size] → the same."""
        for layer in self.layer:
            states = layer(states, angles, seen)
        return states


class GteLayer(nn.Module):
    """Attention and a gated part, each added to what it has read, and then normalised."""

    def __init__(self, config: Any) -> None:
        super().__init__()
        self.attention = GteAttention(config)
        self.attn_ln = nn.LayerNorm(config.hidden_size, config.layer_norm_eps)
        self.mlp = GteGatedPart(config)
        self.mlp_ln = nn.LayerNorm(config.hidden_size, config.layer_norm_eps)

    def forward(self, states: Tensor, angles: tuple[Tensor, Tensor], seen: Tensor) -> Tensor:
        """[B, S, hidden_size] → the same."""
        states = self.attn_ln(states + self.attention(states, angles, seen))
        finished: Tensor = self.mlp_ln(states + self.mlp(states))
        return finished


class GteAttention(nn.Module):
    """Queries, keys and values of one matrix, one after the other, or of three."""

    def __init__(self, config: Any) -> None:
        super().__init__()
        hidden = config.hidden_size
        if config.packed:
            self.qkv_proj = nn.Linear(hidden, 3 * hidden)
        else:
            self.q_proj = nn.Linear(hidden, hidden)
            self.k_proj = nn.Linear(hidden, hidden)
            self.v_proj = nn.Linear(hidden, hidden)
        self.o_proj = nn.Linear(hidden, hidden)
        self._config = config

    def forward(self, states: Tensor, angles: tuple[Tensor, Tensor], seen: Tensor) -> Tensor:
        """[B, S, hidden_size] → the same."""
        if self._config.packed:
            parts = self.qkv_proj(states).chunk(3, -1)
        else:
            parts = self.q_proj(states), self.k_proj(states), self.v_proj(states)
        made: Tensor = self.o_proj(attend(parts, self._config, angles, seen))
        return made


class GteGatedPart(nn.Module):
    """GEGLU; of the matrix, the gate is the second half."""

    def __init__(self, config: Any) -> None:
        super().__init__()
        hidden, wide = config.hidden_size, config.intermediate_size
        self.up_gate_proj = nn.Linear(hidden, 2 * wide, bias=False)
        self.down_proj = nn.Linear(wide, hidden)

    def forward(self, states: Tensor) -> Tensor:
        """[B, S, hidden_size] → the same."""
        up, gate = self.up_gate_proj(states).chunk(2, -1)
        made: Tensor = self.down_proj(functional.gelu(gate) * up)
        return made
