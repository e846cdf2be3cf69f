"""Quantised checkpoints that are damaged, or of a kind that can't be read: one sentence each."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from tests.export import quantised as q
from tests.export.refusals import refusal
from tests.export.test_checkpoints import VARIANTS
from tests.export.test_text_part import gemma3
from tests.export.test_text_part import save as save_whole
from tests.export.tiny import CONFIGS, save_tiny

Refuse = Callable[[Path], str]
Change = Callable[[dict[str, Tensor]], object]
Q = "model.layers.0.self_attn.q_proj"
"""Of 64 inputs and 64 outputs."""


def without(end: str) -> Change:
    return lambda tensors: tensors.pop(f"{Q}.{end}")


def put(end: str, change: Callable[[Tensor], Tensor]) -> Change:
    return lambda tensors: tensors.update({f"{Q}.{end}": change(tensors[f"{Q}.{end}"])})


def put_plain(tensors: dict[str, Tensor]) -> None:
    tensors[f"{Q}.weight"] = torch.zeros(3, 5)


def nothing(_tensors: dict[str, Tensor]) -> None:
    """Tensors stay as they are."""


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("plain") / "source"
    save_tiny(folder, CONFIGS["llama"]())
    return folder


@pytest.fixture
def refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Refuse:
    return lambda source: refusal(source, tmp_path / "models", capsys)


@pytest.fixture
def damaged(plain: Path, tmp_path: Path) -> Callable[[str, dict[str, Any], Change], Path]:
    """Quantise a projection, and change it afterwards."""

    def damage(variant: str, setting: dict[str, Any], change: Change) -> Path:
        folder = Path(shutil.copytree(plain, tmp_path / "source"))
        config, quantiser = VARIANTS[variant]
        q.save_quantised(folder, config | setting, quantiser, rf"{Q}\.weight")
        tensors = load_file(folder / "model.safetensors")
        change(tensors)
        whole = {name: tensor.contiguous() for name, tensor in tensors.items()}
        save_file(whole, folder / "model.safetensors", {"format": "pt"})
        return folder

    return damage


GPTQ = [
    (without("scales"), f"{Q}.scales is missing, which a quantised weight needs"),
    (without("qweight"), f"{Q}.qweight is missing"),
    (put_plain, f"{Q}.weight is stored twice: as it is, and quantised"),
    (without("qzeros"), f"{Q}.qzeros is missing"),
    (put("scales", lambda t: t[:1]), f"{Q}.scales has [1, 64], expected [2, 64]"),
    (put("qzeros", lambda t: t[:, :3]), f"{Q}.qzeros has [2, 3], expected [2, 8]"),
    (put("qweight", lambda t: t[:4]), f"{Q}.qweight has [4, 64], expected [8, 64]"),
    (put("qweight", lambda t: t[0]), f"{Q}.qweight has [64], expected 2 dimensions"),
    (put("qweight", lambda t: t[:0]), f"{Q}.qweight has [0, 64], which is empty"),
    (put("qweight", lambda t: t.float()), f"{Q}.qweight is F32, expected I32"),
    (put("scales", lambda t: t.int()), f"{Q}.scales is I32, expected F16 or BF16 or F32"),
    (put("g_idx", lambda t: t[:-1]), f"{Q}.weight has [64, 63], expected [64, 64]"),
    (put("g_idx", lambda t: t + 1), f"{Q}.g_idx has 1 … 2, expected 0 … 1"),
    (put("scales", lambda t: t * torch.inf), f"{Q}.weight has values that are not finite"),
]
AWQ = [
    (without("qzeros"), f"{Q}.qzeros is missing"),
    (put("scales", lambda t: t[:, :8]), f"{Q}.scales has [2, 8], expected [2, 64]"),
]
PACKED = [
    (without("weight_scale"), f"{Q}.weight_scale is missing"),
    (without("weight_shape"), f"{Q}.weight_shape is missing"),
    (without("weight_zero_point"), f"{Q}.weight_zero_point is missing"),
    (put("weight_scale", lambda t: t[:, :1]), f"{Q}.weight_scale has [64, 1], expected [64, 2]"),
    (put("weight_shape", lambda t: t + 9), f"{Q}.weight_shape is [73, 73], which [64, 8] words"),
    (put("weight_zero_point", lambda t: t[:1]), f"{Q}.weight_zero_point has [1, 2], expected"),
    (
        put("weight_zero_point", lambda t: t.float()),
        f"{Q}.weight_zero_point has [8, 2], expected [64, 2]",
    ),
    (
        put("weight_zero_point", lambda t: t.to(torch.int8)),
        f"{Q}.weight_zero_point has [8, 2], expected [64, 2]",
    ),
]
FLOATS = [
    (without("weight_scale"), f"{Q}.weight_scale is missing"),
    (put("weight", lambda t: t.float()), f"{Q}.weight is F32, expected F8_E4M3 or F8_E5M2"),
]
FP8 = [
    (without("weight_scale_inv"), f"{Q}.weight_scale_inv is missing"),
    (without("weight"), f"{Q}.weight is missing"),
    (put("weight_scale_inv", lambda t: t.T[:1]), f"{Q}.weight_scale_inv has [1, 2], expected"),
]
NF4 = [
    (without("weight.absmax"), f"{Q}.weight.absmax is missing"),
    (without("weight.quant_map"), f"{Q}.weight.quant_map is missing"),
    (without("weight.nested_absmax"), f"{Q}.weight.nested_absmax is missing"),
    (without("weight.quant_state.bitsandbytes__nf4"), "quant_state.bitsandbytes__nf4 is missing"),
    (put("weight.quant_state.bitsandbytes__nf4", lambda t: t[:9]), "Input data was truncated"),
    (put("weight", lambda t: t[1:]), f"{Q}.weight has 2047 numbers, expected 2048"),
    (put("weight.absmax", lambda t: t.bfloat16()), f"{Q}.weight.absmax is BF16, expected U8"),
]
INT8 = [
    (without("SCB"), f"{Q}.SCB is missing"),
    (put("SCB", lambda t: t[:1]), f"{Q}.SCB has [1], expected [64]"),
    (put("weight_format", lambda t: t + 1), f"{Q}.weight_format is not 0"),
    (put("weight_format", lambda t: t.bfloat16()), f"{Q}.weight_format is BF16, expected U8 or"),
    (put("weight_format", lambda t: t.new_empty(0)), f"{Q}.weight_format has [0], which is empty"),
    (put("weight_format", lambda t: t.new_zeros(2)), f"{Q}.weight_format has [2], expected [] or"),
]
DAMAGES = [
    *[("gptq", *case) for case in GPTQ],
    *[("awq", *case) for case in AWQ],
    *[("pack-quantized, zero points", *case) for case in PACKED],
    *[("float-quantized", *case) for case in FLOATS],
    *[("fp8 in blocks", *case) for case in FP8],
    *[("nf4", *case) for case in NF4],
    *[("llm.int8", *case) for case in INT8],
    (
        "pack-quantized",
        lambda tensors: tensors.update({f"{Q}.weight_zero_point": torch.zeros(8, 2).int()}),
        f"{Q}.weight_zero_point has [8, 2], expected [64, 2]",
    ),
]


@pytest.mark.parametrize(("variant", "change", "said"), DAMAGES)
def test_damaged_weight_is_one_sentence(
    variant: str, change: Change, said: str, damaged: Any, refused: Refuse
) -> None:
    folder = damaged(variant, {}, change)
    sentence = refused(folder)
    assert str(folder) in sentence
    assert said in sentence


WEIGHTS = {"num_bits": 4, "strategy": "group", "group_size": 32, "symmetric": False}


def scheme(**changes: Any) -> dict[str, Any]:
    return q.compressed("pack-quantized", **{**WEIGHTS, **changes})


PACKED_VARIANT = "pack-quantized, zero points"


@pytest.mark.parametrize(
    ("variant", "setting", "said"),
    [
        ("gptq", {"group_size": 0}, "group_size is 0, expected -1 or an int >= 1"),
        ("gptq", {"bits": 5}, "bits is 5, which can't be read; expected 2, 3, 4, 8"),
        ("gptq", {"bits": 8}, f"{Q}.qweight has [8, 64], expected [16, 64]"),
        ("gptq", {"bits": "4"}, "Expected `int`, got `str` - at `$.bits`"),
        ("gptq", {"checkpoint_format": "marlin"}, "checkpoint_format is 'marlin', which can't be"),
        ("gptq", {"format": "marlin"}, "format is 'marlin', which can't be"),
        (
            "gptq",
            {"format": "gptq_v2", "checkpoint_format": "gptq"},
            "format is 'gptq_v2', but checkpoint_format is 'gptq'",
        ),
        ("gptq", {"dynamic": {"+:(": {}}}, "quantization_config.dynamic has '+:('"),
        (
            "gptq",
            {"dynamic": {".*q_proj": {"format": "marlin"}}},
            f"quantization_config.format for {Q} is 'marlin', which can't be read; expected 'gptq'",
        ),
        (
            "gptq",
            {"dynamic": {"+:.*q_proj": {"checkpoint_format": "marlin"}}},
            f"checkpoint_format for {Q} is 'marlin', which can't be read",
        ),
        (
            "gptq",
            {"format": "gptq", "dynamic": {".*q_proj": {"checkpoint_format": "gptq_v2"}}},
            f"format for {Q} is 'gptq', but checkpoint_format is 'gptq_v2'",
        ),
        (
            "gptq",
            {"dynamic": {r"-:.*q_proj": {}, ".*": {"bits": 4}}},
            f"quantization_config.dynamic has '-:.*q_proj', but {Q} is stored quantised",
        ),
        (
            "gptq",
            {"dynamic": {"-:(": {}}},
            "quantization_config.dynamic has '-:(': error: missing )",
        ),
        ("gptq", {"modules_to_not_convert": ["re:("]}, "modules_to_not_convert has 're:(': error"),
        (
            "fp8 in blocks",
            {"ignored_layers": ["re:["]},
            "ignored_layers has 're:[': error: untermin",
        ),
        (
            PACKED_VARIANT,
            {"ignore": ["re:*"]},
            "quantization_config.ignore has 're:*': error: noth",
        ),
        (
            "auto-round",
            {"extra_config": {"(": {"bits": 4}}},
            "extra_config has '(': error: missing )",
        ),
        ("gptq", {"modules_to_not_convert": [Q]}, f"but {Q} is stored quantised"),
        (
            "gptq",
            {"modules_to_not_convert": ["lm_head", "model.layers.0"]},
            f"'model.layers.0', but {Q}",
        ),
        ("awq", {"version": "gemv"}, "version is 'gemv', which can't be read; expected 'gemm'"),
        ("awq", {"bits": 8}, "bits is 8, which can't be read; expected 4"),
        ("awq", {"group_size": -2}, "group_size is -2, expected -1 or an int >= 1"),
        (PACKED_VARIANT, {"format": "nvfp4-pack-quantized"}, "format is 'nvfp4-pack-quantized'"),
        (PACKED_VARIANT, {"format": "marlin-24"}, "format is 'marlin-24', which can't be read"),
        (PACKED_VARIANT, {"ignore": ["re:.*q_proj"]}, f"has 're:.*q_proj', but {Q} is stored"),
        (PACKED_VARIANT, {"sparsity_config": {"format": "sparse-bitmask"}}, "sparsity_config is"),
        (PACKED_VARIANT, {"transform_config": {"config_groups": {"u": {}}}}, "transform_config is"),
        (PACKED_VARIANT, scheme(strategy="token"), "strategy is 'token', which can't be read"),
        (PACKED_VARIANT, scheme(num_bits=3), "num_bits is 3, which can't be read; expected 2, 4"),
        (PACKED_VARIANT, scheme(group_size=0), "group_size is 0, expected -1 or an int >= 1"),
        (PACKED_VARIANT, scheme(type="float"), "type is 'float', which can't be read"),
        (
            PACKED_VARIANT,
            scheme() | {"config_groups": {"g": {"targets": ["Embedding"], "weights": WEIGHTS}}},
            "targets has the class 'Embedding', expected 'Linear', names or patterns of modules",
        ),
        (
            PACKED_VARIANT,
            scheme() | {"config_groups": {"g": {"targets": ["lm_head"], "weights": WEIGHTS}}},
            f"{Q} is quantised, but no target of config_groups names it",
        ),
        (
            PACKED_VARIANT,
            scheme() | {"config_groups": {"g": {"targets": ["re:("], "weights": WEIGHTS}}},
            "quantization_config.targets has 're:(': error: missing )",
        ),
        (PACKED_VARIANT, {"config_groups": {}}, "but no target of config_groups names it"),
        (
            "auto-round",
            {"packing_format": "auto_round:fp8_static"},
            "'auto_round:fp8_static', which",
        ),
        ("auto-round", {"packing_format": None}, "packing_format is None, which can't be read"),
        (
            "auto-round",
            {"extra_config": {Q: {"bits": 2}}},
            f"{Q}.scales has [2, 64], expected [4, 64]",
        ),
        ("fp8 in blocks", {"weight_block_size": [0, 128]}, "weight_block_size is [0, 128]"),
        ("fp8 in blocks", {"weight_block_size": 128}, "Expected `array | null`, got `int`"),
    ],
)
def test_setting_that_cant_be_read_is_one_sentence(
    variant: str, setting: dict[str, Any], said: str, damaged: Any, refused: Refuse
) -> None:
    folder = damaged(variant, setting, nothing)
    sentence = refused(folder)
    assert sentence.startswith(str(folder))
    assert said in sentence


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("blocksize", 0, "blocksize is 0, expected an even int of 2 … 4096"),
        ("blocksize", 2**40, f"blocksize is {2**40}, expected an even int of 2 … 4096"),
        ("nested_blocksize", 3, "nested_blocksize is 3, expected an even int of 2"),
        ("shape", [64], "shape is [64], expected that of a matrix"),
        ("shape", None, "Expected `array`, got `null` - at `$.shape`"),
        ("shape", [64, 65], f"{Q}.weight has 2048 numbers, expected 2080"),
    ],
)
def test_what_bitsandbytes_says_of_a_weight_is_checked(
    field: str, value: object, said: str, damaged: Any, refused: Refuse
) -> None:
    end = "weight.quant_state.bitsandbytes__nf4"

    def change(state: Tensor) -> Tensor:
        text = json.dumps(json.loads(bytes(state.tolist())) | {field: value})
        return torch.tensor([*text.encode()], dtype=torch.uint8)

    assert said in refused(damaged("nf4", {}, put(end, change)))


@pytest.mark.parametrize("method", ["hqq", "aqlm", "quip", "eetq", "vptq", "quanto", "torchao", 5])
def test_unknown_method_is_named_beside_those_that_can_be_read(
    method: object, damaged: Any, refused: Refuse
) -> None:
    folder = damaged("gptq", {"quant_method": method}, nothing)
    assert refused(folder) == (
        f"{folder}: quantization_config.quant_method is {method!r}, which can't be read; expected "
        "one of auto-round, awq, bitsandbytes, compressed-tensors, fbgemm_fp8, fp8, gptq, mxfp4"
    )


@pytest.mark.parametrize(
    ("whole", "text", "said"),
    [
        (None, {"quant_method": "mxfp4"}, "the weights of its text model are quantised"),
        (None, 5, ": text_config.quantization_config is 5, expected an object"),
        (
            {"quant_method": "fp8"},
            {"quant_method": "awq"},
            ": quantization_config and text_config.quantization_config differ",
        ),
    ],
)
def test_what_a_text_model_says_of_its_weights_is_not_overlooked(
    whole: object, text: object, said: str, tmp_path: Path, refused: Refuse
) -> None:
    save_whole(gemma3(), tmp_path / "source")
    config = json.loads((tmp_path / "source" / "config.json").read_text())
    config["text_config"]["quantization_config"] = text
    config |= {} if whole is None else {"quantization_config": whole}
    (tmp_path / "source" / "config.json").write_text(json.dumps(config))
    assert refused(tmp_path / "source").endswith(said)


def test_quantised_pickles_are_refused(damaged: Any, refused: Refuse) -> None:
    folder = damaged("gptq", {}, nothing)
    (folder / "model.safetensors").unlink()
    torch.save({}, folder / "pytorch_model.bin")
    assert refused(folder) == f"{folder}: its weights are quantised by gptq and pickled"


def test_a_model_whose_layers_are_transposed_is_refused(tmp_path: Path, refused: Refuse) -> None:
    """A square matrix the wrong way round would fit, and be another model."""
    save_tiny(tmp_path / "source", CONFIGS["gpt2"]())
    config, quantiser = VARIANTS["gptq"]
    q.save_quantised(tmp_path / "source", config, quantiser, r".*h\.0\.attn\.c_proj\.weight")
    assert refused(tmp_path / "source") == (
        "gpt2 is not supported: its weights are quantised, and its layers transpose them"
    )


def test_a_quantised_encoder_is_refused(damaged: Any, refused: Refuse) -> None:
    folder = damaged("gptq", {}, nothing)
    (folder / "modules.json").write_text("[]")
    assert refused(folder) == f"{folder} is an encoder whose weights are quantised by gptq"
