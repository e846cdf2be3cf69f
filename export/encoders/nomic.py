"""Nomic's encoder, `nomic_bert`: BERT with rotary positions and gated layers.

Transformers 4.57 has none, and its makers ship it as Python, which is never executed. Modules are
named as the published weights are. A configuration comes in its makers' names (GPT-2's), in those
of Transformers 5, or in both at once.

Source: nomic-ai/contrastors, models/huggingface; Transformers 5, models/nomic_bert.
"""

from pathlib import Path
from typing import Any, Final

from torch import Tensor, nn
from torch.nn import functional
from transformers import PretrainedConfig, PreTrainedModel
from transformers.modeling_outputs import BaseModelOutput

from export.encoders.layers import TokenEmbeddings, attend, seen_by_all
from export.encoders.options import Options
from export.encoders.rotary import Rotation, Stretch

ROUNDED: Final = 256
"""Its makers' code makes the gated layers' width a multiple of it."""
TRAINED: Final = 2048
"""Tokens of the longest texts in training, where a configuration doesn't say."""
BASE: Final = 1000.0
"""Of Transformers' rotary positions, where a configuration doesn't say."""
FIXED: Final = {
    "activation_function": "swiglu",
    "hidden_act": "silu",
    "prenorm": False,
    "parallel_block": False,
    "parallel_block_tied_norm": False,
    "use_rms_norm": False,
    "causal": False,
    "rotary_emb_scale_base": None,
    "rotary_head_dim": False,
    "last_layer_subset": False,
}
"""Options that have one value in all published models for texts."""
IDLE: Final = frozenset({
    *("attn_pdrop", "embd_pdrop", "resid_pdrop", "fused_bias_fc", "fused_dropout_add_ln"),
    *("use_flash_attn", "use_xentropy", "dense_seq_output", "add_pooling_layer"),
    *("reorder_and_upcast_attn", "scale_attn_by_inverse_layer_idx", "scale_attn_weights"),
    *("summary_activation", "summary_first_dropout", "summary_proj_to_labels", "summary_type"),
    *("summary_use_proj", "max_position_embeddings", "n_positions", "n_ctx"),
    *("num_experts", "num_shared_experts", "moe_top_k", "moe_normalize_expert_weights"),
    *("moe_resid_pdrop", "expert_choice_router", "ffn_div"),
})  # fmt: skip
"""Options of kernels, of training, of GPT-2, and of mixtures, which are refused before."""


class NomicConfig(PretrainedConfig):
    """What the modules are made from."""

    model_type = "nomic_bert"


def read_nomic(folder: Path) -> PretrainedConfig:
    """Read a Nomic model's configuration.

    Raises:
        SourceUnusable: an option is damaged.
        UnsupportedModel: an option is not supported.
    """
    options = Options(folder)
    theirs = "n_embd" in options
    if every := options.value("moe_every_n_layers"):
        raise options.refusal("moe_every_n_layers", every, "mixtures of experts are not supported")
    for name, value in FIXED.items():
        options.only(name, value)
    hidden = options.whole("n_embd", "hidden_size")
    heads = options.whole("n_head", "num_attention_heads")
    if hidden % heads:
        raise options.refusal("n_head", heads, f"which doesn't divide n_embd, {hidden}")
    options.only("num_heads_kv", heads)
    options.only("head_dim", hidden // heads)
    rounded = options.whole("pad_vocab_size_multiple", default=1)
    wide = options.whole("n_inner", "intermediate_size", default=int(8 * hidden / 3))
    rotation, context = _positions(options, hidden // heads, theirs=theirs)
    config = NomicConfig(
        **options.common,
        hidden_size=hidden,
        num_attention_heads=heads,
        num_hidden_layers=options.whole("n_layer", "num_hidden_layers"),
        intermediate_size=_multiple(wide, ROUNDED) if theirs else wide,
        vocab_size=_multiple(options.whole("vocab_size"), rounded),
        type_vocab_size=options.whole("type_vocab_size", default=2, least=0),
        max_position_embeddings=context,
        layer_norm_eps=options.number(
            "layer_norm_epsilon", "layer_norm_eps", default=1e-5 if theirs else 1e-12
        ),
        attention_biases=options.flag("qkv_proj_bias", default=theirs),
        inner_biases=options.flag("mlp_fc1_bias", default=theirs),
        outer_biases=options.flag("mlp_fc2_bias", default=theirs),
    )
    config.rotation = rotation
    options.refuse_others(IDLE)
    return config


def _positions(options: Options, head_dim: int, *, theirs: bool) -> tuple[Rotation, int]:
    """How heads are turned, and the tokens of the longest text for which that was meant."""
    options.only("rope_parameters.rope_type", "default")
    base = options.number(
        "rotary_emb_base", "rope_parameters.rope_theta", default=None if theirs else BASE
    )
    fraction = options.value("rotary_emb_fraction")
    fraction = (0.0 if theirs else 1.0) if fraction is None else fraction
    dims = int(head_dim * fraction) if type(fraction) in (int, float) and 0 < fraction <= 1 else 0
    if dims < 4 or dims % 2:
        raise options.refusal(
            "rotary_emb_fraction", fraction, f"an even part of {head_dim} numbers is expected"
        )
    interleaved = options.flag("rotary_emb_interleaved", default=False)
    native = not theirs and "max_trained_positions" not in options
    named = "max_position_embeddings" if native else "max_trained_positions"
    trained = options.whole(named, default=TRAINED)
    if "rotary_scaling_factor" not in options:
        return Rotation(dims, base, interleaved), trained
    factor = options.number("rotary_scaling_factor")
    longest = options.whole("n_positions", default=trained)
    return Rotation(dims, base, interleaved, stretch=Stretch(factor, trained)), longest


def _multiple(size: int, of: int) -> int:
    return -(-size // of) * of


class NomicModel(PreTrainedModel):
    """`input_ids` and `attention_mask`, and perhaps `token_type_ids`, in; hidden states out."""

    config_class = NomicConfig
    base_model_prefix = "bert"
    _supports_sdpa = True

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.embeddings = TokenEmbeddings(config)
        self.emb_ln = nn.LayerNorm(config.hidden_size, config.layer_norm_eps)
        self.encoder = NomicLayers(config)
        self.post_init()  # type: ignore[no-untyped-call]

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor | None = None
    ) -> BaseModelOutput:
        """Compute the hidden states [B, S, hidden_size] of tokens [B, S]."""
        states = self.emb_ln(self.embeddings(input_ids, token_type_ids))
        angles = self.config.rotation.angles(attention_mask)
        seen = seen_by_all(attention_mask)
        states = self.encoder(states, angles, seen)
        return BaseModelOutput(last_hidden_state=states)


class NomicLayers(nn.Module):
    """All layers, under the name that the weights have for them."""

    def __init__(self, config: Any) -> None:
        super().__init__()
        layers = (NomicLayer(config) for _ in range(config.num_hidden_layers))
        self.layers = nn.ModuleList(layers)

    def forward(self, states: Tensor, angles: tuple[Tensor, Tensor], seen: Tensor) -> Tensor:
        """[B, S, hidden_size] → the same."""
        for layer in self.layers:
            states = layer(states, angles, seen)
        return states


class NomicLayer(nn.Module):
    """Attention and a gated part, each added to what it has read, and then normalised."""

    def __init__(self, config: Any) -> None:
        super().__init__()
        self.attn = NomicAttention(config)
        self.norm1 = nn.LayerNorm(config.hidden_size, config.layer_norm_eps)
        self.mlp = NomicGatedPart(config)
        self.norm2 = nn.LayerNorm(config.hidden_size, config.layer_norm_eps)

    def forward(self, states: Tensor, angles: tuple[Tensor, Tensor], seen: Tensor) -> Tensor:
        """[B, S, hidden_size] → the same."""
        states = self.norm1(states + self.attn(states, angles, seen))
        finished: Tensor = self.norm2(states + self.mlp(states))
        return finished


class NomicAttention(nn.Module):
    """Queries, keys and values of one matrix, one after the other."""

    def __init__(self, config: Any) -> None:
        super().__init__()
        hidden, biased = config.hidden_size, config.attention_biases
        self.Wqkv = nn.Linear(hidden, 3 * hidden, bias=biased)
        self.out_proj = nn.Linear(hidden, hidden, bias=biased)
        self._config = config

    def forward(self, states: Tensor, angles: tuple[Tensor, Tensor], seen: Tensor) -> Tensor:
        """[B, S, hidden_size] → the same."""
        parts = self.Wqkv(states).chunk(3, -1)
        made: Tensor = self.out_proj(attend(parts, self._config, angles, seen))
        return made


class NomicGatedPart(nn.Module):
    """SwiGLU; the gate is the second matrix."""

    def __init__(self, config: Any) -> None:
        super().__init__()
        hidden, wide = config.hidden_size, config.intermediate_size
        self.fc11 = nn.Linear(hidden, wide, bias=config.inner_biases)
        self.fc12 = nn.Linear(hidden, wide, bias=config.inner_biases)
        self.fc2 = nn.Linear(wide, hidden, bias=config.outer_biases)

    def forward(self, states: Tensor) -> Tensor:
        """[B, S, hidden_size] → the same."""
        made: Tensor = self.fc2(self.fc11(states) * functional.silu(self.fc12(states)))
        return made
