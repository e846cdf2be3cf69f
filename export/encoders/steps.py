"""The steps of an encoder's export, which have the names and files of a decoder's.

resolve → trace → clean → quantise → validate → publish; see `export.steps`.
"""

import shutil
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np
from tokenizers import Tokenizer

from app import manifest as contract
from app.encoder_manifest import Closeness, EncoderGraph, EncoderManifest
from app.model_files import Arithmetic
from export import source as sources
from export.encoders.closeness import compare, figures, graph_vectors, sample_rows, torch_vectors
from export.encoders.recipe import Recipe, read_recipe
from export.encoders.torch_encoder import TorchEncoder, load_encoder
from export.encoders.trace import cleaned, trace
from export.errors import QualityRefused, UnsupportedModel
from export.gptq import column_steps, round_to_nearest
from export.graph import OnnxGraph
from export.integer_products import replace_product
from export.onnx_file import load_model as load_onnx_model
from export.onnx_file import save_model
from export.options import ExportOptions
from export.products import find_products, matrix
from export.quantise import quantise
from export.spill import Spill
from export.steps import (
    CLEAN,
    FINAL,
    MODEL_FILE,
    SPILL_FILE,
    Step,
    empty_folder,
    run_resolve,
    write_record,
)

UNQUANTISED: Final = 1e-5
"""The largest distance, 1 - cosine, of float32 from torch: rounding alone."""
GATE: Final = 0.01
"""The largest mean distance of other weights, unless the command line says otherwise."""
LEAST_CONTEXT: Final = 8


class EncoderShape(msgspec.Struct, frozen=True, kw_only=True):
    """What `trace` knows about the graph; the contents of encoder.json."""

    architecture: str
    graph: EncoderGraph
    recipe: Recipe


def run_trace(options: ExportOptions) -> str:
    """The weights → traced/model.onnx and encoder.json."""
    source = sources.read_source(options.work)
    recipe = read_recipe(Path(source.weights), source.kind)
    if options.dtype != "float32":
        raise UnsupportedModel(source.model_id, f"encoders are exported in float32 alone, "
                               f"dtype is {options.dtype}")  # fmt: skip
    encoder = load_encoder(source, recipe)
    graph = describe(encoder, source, recipe)
    traced = empty_folder(options.work / "traced") / MODEL_FILE
    trace(encoder, traced, token_types=graph.token_types)
    architecture = encoder.model.config.model_type
    shape = EncoderShape(architecture=architecture, graph=graph, recipe=recipe)
    write_record(options.work / "encoder.json", shape)
    how = " and ".join(recipe.pooling) or "a score"
    return f"{architecture}, {how}, {graph.width} numbers, {graph.context_length} tokens"


def describe(encoder: TorchEncoder, source: sources.ModelSource, recipe: Recipe) -> EncoderGraph:
    """Describe an encoder to the server.

    Raises:
        UnsupportedModel: its context is too short.
    """
    config: Any = encoder.model.config
    limits = [recipe.max_tokens, source.max_tokens, positions_of(encoder)]
    context = min(limit for limit in limits if limit is not None)
    if context < LEAST_CONTEXT:
        raise UnsupportedModel(
            config.model_type,
            f"its context is {context} tokens, at least {LEAST_CONTEXT} are needed",
        )
    width = 1
    if recipe.pooling:
        width = config.hidden_size * len(recipe.pooling)
        width = recipe.dense[-1].outputs if recipe.dense else width
    return EncoderGraph(
        file=MODEL_FILE,
        vocab_size=config.vocab_size,
        context_length=context,
        width=width,
        num_heads=config.num_attention_heads,
        pad_id=source.pad_id or 0,
        token_types=not recipe.pooling
        and source.pairs_told
        and getattr(config, "type_vocab_size", 0) > 1,
    )


def positions_of(encoder: TorchEncoder) -> int | None:
    """Tokens for which a model has positions."""
    limit: int | None = getattr(encoder.model.config, "max_position_embeddings", None)
    for name, module in encoder.named_modules():
        # RoBERTa and its kin count positions from the padding's id on
        if name.endswith("position_embeddings") and limit is not None:
            padding = getattr(module, "padding_idx", None)
            limit -= 0 if padding is None else padding + 1
    return limit


def run_clean(options: ExportOptions) -> str:
    """traced/model.onnx → clean/model.onnx."""
    folder = empty_folder(options.work / "clean")
    with Spill(folder / SPILL_FILE) as spill:
        graph = cleaned(options.work / "traced" / MODEL_FILE, spill)
        nodes = len(graph.node_list)
        save_model(graph.finish(), folder / MODEL_FILE)
    return f"{nodes} nodes"


def run_quantise(options: ExportOptions) -> str:
    """clean/model.onnx → final/model.onnx."""
    target = empty_folder(options.work / "final")
    if options.encoder_scheme == "int4":
        raise QualityRefused("encoders have no 4-bit weights: expected none, int8 or w8a8")
    with Spill(target / SPILL_FILE) as spill:
        graph = OnnxGraph(load_onnx_model(options.work / "clean" / MODEL_FILE), spill)
        count = 0
        if options.encoder_scheme == "w8a8":
            count = quantise_products(graph, options.arithmetic)
        elif options.encoder_scheme == "int8":
            count = quantise(graph, "int8")
        files = save_model(graph.finish(), target / MODEL_FILE)
    size = sum(file.stat().st_size for file in files)
    return f"{count} matrices, {size / 1e6:.1f} MB"


def quantise_products(graph: OnnxGraph, arithmetic: Arithmetic) -> int:
    """Multiply in int8, every matrix rounded to the nearest; returns how many there are."""
    quantised: dict[str, tuple[str, str]] = {}
    products = find_products(graph)
    for product in products:
        weight = matrix(graph, product.weight)
        assert weight is not None
        values = weight.astype(np.float32)
        steps = column_steps(values)
        codes = round_to_nearest(values, steps)
        replace_product(graph, product, codes, steps, quantised, arithmetic=arithmetic)
    graph.prune()
    return len(products)


def run_validate(options: ExportOptions) -> str:
    """clean/ and final/ against torch → closeness.json.

    Raises:
        QualityRefused: the graph's vectors are not torch's, or outside the gate.
    """
    (options.work / "closeness.json").unlink(missing_ok=True)
    source, shape = sources.read_source(options.work), read_encoder_shape(options.work)
    tokenizer = Tokenizer.from_file(str(options.work / sources.TOKENIZER_FILE))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    rows = sample_rows(tokenizer, shape.graph, source.described)
    encoder = load_encoder(source, shape.recipe)
    reference = torch_vectors(encoder, rows, token_types=shape.graph.token_types)
    exact = compare(reference, graph_vectors(options.work / "clean", shape.graph, rows))
    if exact.min_cosine < 1 - UNQUANTISED:
        raise QualityRefused(
            f"the graph in float32 gives other vectors than torch: {figures(exact)}"
        )
    found = compare(reference, graph_vectors(options.work / "final", shape.graph, rows))
    gate = GATE if options.gate is None else options.gate
    if found.mean_cosine < 1 - gate:
        raise QualityRefused(
            f"{source.model_id} in {options.encoder_scheme} is too far from torch: "
            f"{figures(found)}; the gate is a mean cosine of {1 - gate:g}"
        )
    write_record(options.work / "closeness.json", found)
    return figures(found)


def run_publish(options: ExportOptions) -> str:
    """final/ and the tokenizer → the model's folder; its manifest is written last."""
    source, shape = sources.read_source(options.work), read_encoder_shape(options.work)
    recipe = shape.recipe
    part = empty_folder(options.out.with_name(f".{options.out.name}.part"))
    for file in (options.work / "final").iterdir():
        shutil.copy2(file, part / file.name)
    shutil.copy2(options.work / sources.TOKENIZER_FILE, part / sources.TOKENIZER_FILE)
    assert source.kind != "text", "these are the steps of encoders"
    assert options.encoder_scheme != "int4", "refused before"
    manifest = EncoderManifest(
        kind=source.kind,
        model_id=source.model_id + options.suffix,
        description=source.description,
        architecture=shape.architecture,
        source=source.described,
        license=source.license,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        graph=shape.graph,
        scheme=options.encoder_scheme,
        arithmetic=options.arithmetic if options.encoder_scheme == "w8a8" else "any",
        closeness=read_closeness(options.work),
        pooling=" and ".join(recipe.pooling),
        normalised=recipe.normalised,
        dimensions=tuple(size for size in recipe.dimensions if size < shape.graph.width),
        any_dimensions=recipe.any_dimensions,
        prompts=recipe.prompts,
        default_prompt=recipe.default_prompt,
        files={f.name: contract.describe_file(f) for f in sorted(part.iterdir())},
    )
    contract.write_manifest(part, manifest)
    if options.out.exists():
        # Two renames: a server that starts in between sees the old model, none, or the new one.
        shutil.rmtree(
            options.out.rename(empty_folder(options.work / "replaced") / options.out.name)
        )
    part.rename(options.out)
    return f"{manifest.size_bytes / 1e6:.1f} MB in {options.out}"


ENCODER_STEPS: Final[dict[str, Step]] = {
    "resolve": Step(run_resolve),
    "trace": Step(run_trace, ("source.json",)),
    "clean": Step(run_clean, ("traced/model.onnx",)),
    "quantise": Step(run_quantise, CLEAN),
    "validate": Step(
        run_validate, ("source.json", "encoder.json", "tokenizer.json", *CLEAN, *FINAL)
    ),
    "publish": Step(
        run_publish, ("source.json", "encoder.json", "tokenizer.json", "closeness.json", *FINAL)
    ),
}


def read_encoder_shape(work: Path) -> EncoderShape:
    """Read what `trace` wrote."""
    return msgspec.json.decode((work / "encoder.json").read_bytes(), type=EncoderShape)


def read_closeness(work: Path) -> Closeness:
    """Read what `validate` wrote."""
    return msgspec.json.decode((work / "closeness.json").read_bytes(), type=Closeness)
