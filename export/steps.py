"""The steps of an export, each of which reads and writes files in a work folder.

resolve → trace → clean → quantise → validate → publish. Every step reads what earlier ones wrote,
so that any of them can be run again alone. Knows their order and their files; the work itself is
done by other modules.
"""

import math
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, Literal

import msgspec
import torch
from tokenizers import Tokenizer

from app import manifest as contract
from export import source as sources
from export.cleanup import clean
from export.errors import QualityRefused, UnsupportedModel
from export.file_checks import refusing
from export.graph import OnnxGraph
from export.integer import CALIBRATION, quantise_to_integers
from export.observe import TracePlan, observe
from export.onnx_config import trace
from export.onnx_file import load_model as load_onnx_model
from export.onnx_file import save_model
from export.quantise import BITS, BLOCK_SIZE, quantise
from export.records import Findings, Shape, figures, read_findings, read_shape
from export.session import GraphSession
from export.torch_model import load_model as load_torch_model
from export.validate import (
    TEXT,
    TEXT_TOKENS,
    GreedyMatch,
    compare_greedy,
    measure_invariance,
    measure_quality,
    refuse_poor_page,
    rows_alone_and_together,
    torch_logits,
)
from export.vocabulary import fit_tokenizer

MODEL_FILE: Final = "model.onnx"
CLEAN: Final = (f"clean/{MODEL_FILE}", f"clean/{MODEL_FILE}.data")
FINAL: Final = (f"final/{MODEL_FILE}", f"final/{MODEL_FILE}.data")
GATE: Final = 0.02
"""The largest mean KL from torch, nats per token, unless the command line says otherwise."""
LEAST_CONTEXT: Final = 40
"""A page of fewer tokens can't be compared; see `export.validate.refuse_poor_page`."""
PAGE_SPARE: Final = 8
"""Tokens of the context that the page leaves for decode steps after it."""


@dataclass(frozen=True)
class ExportOptions:
    """What the command line asked for."""

    source: str | None
    out: Path
    work: Path
    scheme: Literal["none", "w8a8", "int8", "int4"] = "int8"
    encoder_scheme: Literal["none", "w8a8", "int8", "int4"] = "none"
    """The scheme if the source is an encoder."""
    suffix: str = ""
    """Appended to the model's name."""
    dtype: Literal["float32", "float16"] = "float32"
    gate: float | None = None
    """The largest distance from torch; None: `GATE`, or an encoder's own."""
    text_tokens: int = TEXT_TOKENS


def run_resolve(options: ExportOptions) -> str:
    """The source → source.json, tokenizer.json and chat_template.jinja."""
    return sources.resolve(options.source, options.work).described


def run_trace(options: ExportOptions) -> str:
    """The weights → traced/model.onnx and shape.json."""
    source = sources.read_source(options.work)
    model = load_torch_model(source, getattr(torch, options.dtype))
    dropped = fit_tokenizer(
        options.work / sources.TOKENIZER_FILE, model.config.vocab_size, source.described
    )
    plan = observe(model if options.dtype == "float32" else load_torch_model(source))
    shape = describe(model.config, plan, options.dtype)
    folder = empty_folder(options.work / "traced")
    trace(model, plan, folder)
    write_record(options.work / "shape.json", shape)
    without = f", {dropped} special tokens beyond the embedding dropped" if dropped else ""
    return f"{shape.architecture}, {len(plan.layers)} layers{without}"


def describe(config: Any, plan: TracePlan, dtype: Literal["float32", "float16"]) -> Shape:
    """Describe a planned graph to the server.

    Raises:
        UnsupportedModel: the layers have caches of different shape, or the context is too short.
    """
    if plan.context_length < LEAST_CONTEXT:
        raise UnsupportedModel(
            config.model_type,
            f"its context is {plan.context_length} tokens, at least {LEAST_CONTEXT} are needed",
        )
    first = plan.layers[0]
    if any(
        (x.num_kv_heads, x.head_dim) != (first.num_kv_heads, first.head_dim) for x in plan.layers
    ):
        raise UnsupportedModel(config.model_type, "its layers have caches of different shape")
    graph = contract.Graph(
        file=MODEL_FILE,
        num_layers=len(plan.layers),
        num_kv_heads=first.num_kv_heads,
        head_dim=first.head_dim,
        vocab_size=config.vocab_size,
        context_length=plan.context_length,
        kv_dtype=dtype,
    )
    return Shape(
        architecture=config.model_type,
        graph=graph,
        rotary_in_attention=sum(layer.rotary is not None for layer in plan.layers),
        windows=tuple(layer.window for layer in plan.layers),
    )


def run_clean(options: ExportOptions) -> str:
    """traced/model.onnx → clean/model.onnx."""
    graph = OnnxGraph(load_onnx_model(options.work / "traced" / MODEL_FILE))
    before = len(graph.node_list)
    clean(graph)
    save_model(graph.finish(), empty_folder(options.work / "clean") / MODEL_FILE)
    return f"{before} nodes → {len(graph.node_list)}"


def run_quantise(options: ExportOptions) -> str:
    """clean/model.onnx → final/model.onnx."""
    target = empty_folder(options.work / "final")
    clean_file = options.work / "clean" / MODEL_FILE
    if options.scheme == "w8a8":
        tokenizer = Tokenizer.from_file(str(options.work / sources.TOKENIZER_FILE))
        with refusing(f"{options.work.name}: its tokenizer can't read a page of text"):
            ids = tokenizer.encode(CALIBRATION.read_text()).ids
        graph, outcome = quantise_to_integers(
            clean_file, target, read_shape(options.work).graph, ids
        )
        said = str(outcome)
    else:
        graph = OnnxGraph(load_onnx_model(clean_file))
        count = 0 if options.scheme == "none" else quantise(graph, options.scheme)
        said = f"{count} matrices"
    files = save_model(graph.finish(), target / MODEL_FILE)
    size = sum(file.stat().st_size for file in files)
    return f"{said}, {len(graph.node_list)} nodes, {size / 1e6:.1f} MB"


def run_validate(options: ExportOptions) -> str:
    """clean/ and final/ against torch → findings.json.

    Raises:
        QualityRefused: the graph chose other tokens than torch, or is outside the gate.
    """
    (options.work / "findings.json").unlink(missing_ok=True)
    source, shape = sources.read_source(options.work), read_shape(options.work)
    model = load_torch_model(source)
    context = shape.graph.context_length
    page = TEXT.read_text()
    with refusing(f"{source.described}: its tokenizer can't read a page of English"):
        tokenizer = Tokenizer.from_file(str(options.work / sources.TOKENIZER_FILE))
        ids = tokenizer.encode(page).ids[: min(options.text_tokens, context - PAGE_SPARE)]
    refuse_poor_page(ids, context)
    match = _greedy(options, shape.graph, model, ids)
    reference = torch_logits(model, ids)
    session = GraphSession(
        options.work / "final", shape.graph, rows=8, capacity=len(ids) + PAGE_SPARE
    )
    quality = measure_quality(reference, session, ids)
    if not all(math.isfinite(figure) for figure in msgspec.structs.astuple(quality)):
        raise QualityRefused(
            f"{source.model_id} in {options.scheme} is not finite: {figures(quality)}"
        )
    gate = GATE if options.gate is None else options.gate
    if quality.mean_kl > gate:
        raise QualityRefused(
            f"{source.model_id} in {options.scheme} is too far from torch: {figures(quality)}; "
            f"the gate is {gate}"
        )
    invariance = measure_invariance(session, ids)
    findings = Findings(
        quality=quality,
        greedy_tokens=match.tokens,
        greedy_ties=match.ties,
        greedy_distinct=match.distinct,
        greedy_max_difference=match.max_difference,
        batch_difference=rows_alone_and_together(session, ids),
        chunk_difference=invariance.chunk_difference,
        min_first_chunk=invariance.min_first_chunk,
    )
    write_record(options.work / "findings.json", findings)
    return figures(quality)


def _greedy(
    options: ExportOptions, graph: contract.Graph, model: Any, ids: list[int]
) -> GreedyMatch:
    """Compare the unquantised graph's tokens with torch's, one by one."""
    session = GraphSession(options.work / "clean", graph, rows=1, capacity=256)
    match = compare_greedy(model, session, ids, context=graph.context_length)
    # In float16 rounding may change the choice of a token; the gate judges how much.
    if match.differing and options.dtype == "float32":
        raise QualityRefused(
            f"the {options.dtype} graph chose another token than torch {match.differing} times "
            f"in {match.tokens}; logits differ by up to {match.max_difference:.3g}"
        )
    return match


def run_publish(options: ExportOptions) -> str:
    """final/ and the tokenizer → the model's folder; its manifest is written last."""
    source, shape = sources.read_source(options.work), read_shape(options.work)
    findings = read_findings(options.work)
    part = empty_folder(options.out.with_name(f".{options.out.name}.part"))
    names = [sources.TOKENIZER_FILE, *(["chat_template.jinja"] if source.chat else [])]
    for file in (options.work / "final").iterdir():
        shutil.copy2(file, part / file.name)
    for name in names:
        shutil.copy2(options.work / name, part / name)
    manifest = contract.Manifest(
        model_id=source.model_id + options.suffix,
        description=source.description,
        architecture=shape.architecture,
        source=source.described,
        license=source.license,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        graph=shape.graph,
        tokens=contract.Tokens(bos_id=source.bos_id, eos_ids=source.eos_ids),
        quantisation=contract.Quantisation(
            scheme=options.scheme,
            arithmetic="u8s8" if options.scheme == "w8a8" else "any",
            block_size=BLOCK_SIZE if options.scheme in BITS else 0,
            batch_invariant=findings.batch_difference == 0.0 and findings.min_first_chunk > 0,
            min_first_chunk=findings.min_first_chunk,
        ),
        quality=findings.quality,
        chat=source.chat,
        sampling=source.sampling,
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


@dataclass(frozen=True)
class Step:
    """One step of an export."""

    run: Callable[[ExportOptions], str]
    """Does the work and says in one line what came of it."""
    reads: tuple[str, ...] = ()
    """Files in the work folder that earlier steps wrote."""

    def missing_input(self, work: Path) -> Path | None:
        """The first file that the step reads and that isn't there."""
        return next((work / name for name in self.reads if not (work / name).is_file()), None)


STEPS: Final[dict[str, Step]] = {
    "resolve": Step(run_resolve),
    "trace": Step(run_trace, ("source.json",)),
    "clean": Step(run_clean, ("traced/model.onnx",)),
    "quantise": Step(run_quantise, ("shape.json", "tokenizer.json", *CLEAN)),
    "validate": Step(run_validate, ("source.json", "shape.json", "tokenizer.json", *CLEAN, *FINAL)),
    "publish": Step(
        run_publish, ("source.json", "shape.json", "tokenizer.json", "findings.json", *FINAL)
    ),
}


def write_record(path: Path, value: msgspec.Struct) -> None:
    """Write what a step leaves for later ones."""
    path.write_bytes(msgspec.json.encode(value))


def empty_folder(folder: Path) -> Path:
    """Make a folder, or empty it of what an earlier run left in it."""
    if folder.exists():
        shutil.rmtree(folder)
    folder.mkdir(parents=True)
    return folder
