"""The steps of an export, each of which reads and writes files in a work folder.

resolve → trace → clean → quantise → validate → publish. Every step reads what earlier ones wrote,
so that any of them can be run again alone. Knows their order and their files; the work itself is
done by other modules.
"""

import shutil
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import msgspec
import torch
from tokenizers import Tokenizer

from app import manifest as contract
from export import source as sources
from export.cleanup import clean
from export.errors import QualityRefused
from export.file_checks import refusing
from export.graph import OnnxGraph
from export.integer import CALIBRATION, quantise_to_integers
from export.observe import TracePlan, observe
from export.onnx_config import trace
from export.onnx_file import load_model as load_onnx_model
from export.onnx_file import save_model
from export.options import ExportOptions
from export.progress import shown
from export.quantise import BITS, BLOCK_SIZE, quantise
from export.quantise_experts import quantise_experts
from export.records import Findings, Shape, describe, figures, read_findings, read_shape
from export.reference import TOKENS, logits_in_pieces
from export.room import refuse_without_room
from export.served import (
    GRAFTED,
    check_adapters,
    describe_adapters,
    graft_adapters,
    measure_adapters,
    refuse_other_adapters,
    refuse_without_adapters,
)
from export.session import GraphSession
from export.sites import SITES, find_sites
from export.spill import Spill
from export.stored_weights import WEIGHTS, fill_in, read_places
from export.torch_model import load_model as load_torch_model
from export.validate import (
    TEXT,
    GreedyMatch,
    compare_greedy,
    judge,
    measure_invariance,
    measure_quality,
    refuse_poor_page,
    rows_alone_and_together,
)
from export.vocabulary import fit_tokenizer
from export.weight_file import WeightFile

MODEL_FILE: Final = "model.onnx"
CLEAN: Final = (f"clean/{MODEL_FILE}", f"clean/{MODEL_FILE}.data")
SPILL_FILE: Final = "spill.bin"
WEIGHT_FILE: Final = "weights.bin"
DESCRIBED: Final = ("source.json", "shape.json", "tokenizer.json")
FINAL: Final = (f"final/{MODEL_FILE}", f"final/{MODEL_FILE}.data")
PAGE_SPARE: Final = 8
"""Tokens of the context that the page leaves for decode steps after it."""


def run_resolve(options: ExportOptions) -> str:
    """The source → source.json, tokenizer.json and chat_template.jinja.

    Raises:
        NoRoom: the disk or the memory is too small for the steps after this one.
    """
    source = sources.resolve(options.source, options.work)
    refuse_without_adapters(options, source)
    shapes = sources.shapes_of(source) if source.kind == "text" else None
    if shapes is None:
        return source.described
    takes = refuse_without_room(
        options.work, shapes, options.scheme, options.dtype, keep_work=options.keep_work
    )
    return f"{source.described}, {takes}"


def run_trace(options: ExportOptions) -> str:
    """The weights → traced/model.onnx, traced/weights.bin and shape.json."""
    source = sources.read_source(options.work)
    folder = empty_folder(options.work / "traced")
    with ExitStack() as stack:
        weights = stack.enter_context(WeightFile(folder / WEIGHT_FILE))
        model = load_torch_model(source, weights, getattr(torch, options.dtype))
        check_adapters(options, model)
        dropped = fit_tokenizer(
            options.work / sources.TOKENIZER_FILE, model.config.vocab_size, source.described
        )
        plan = _observed(options, source, model)
        shape = describe(model.config, plan, options.dtype, MODEL_FILE)
        trace(model, plan, folder, weights)
        stack.pop_all()  # the file is kept
    write_record(options.work / "shape.json", shape)
    without = f", {dropped} special tokens beyond the embedding dropped" if dropped else ""
    return f"{shape.architecture}, {len(plan.layers)} layers{without}"


def _observed(options: ExportOptions, source: sources.ModelSource, model: Any) -> TracePlan:
    """What the layers do, in float32."""
    if options.dtype == "float32":
        return observe(model)
    with WeightFile(options.work / WEIGHT_FILE) as weights:
        return observe(load_torch_model(source, weights))


def run_clean(options: ExportOptions) -> str:
    """traced/model.onnx → clean/model.onnx."""
    folder = empty_folder(options.work / "clean")
    with Spill(folder / SPILL_FILE) as spill:
        graph = OnnxGraph(load_onnx_model(options.work / "traced" / MODEL_FILE), spill)
        before = len(graph.node_list)
        fill_in(graph, read_places(options.work / "traced"))
        clean(graph)
        (options.work / SITES).write_bytes(msgspec.json.encode(find_sites(graph)))
        save_model(graph.finish(), folder / MODEL_FILE)
    if not options.keep_work:
        shutil.rmtree(options.work / "traced")
    return f"{before} nodes → {len(graph.node_list)}"


def run_quantise(options: ExportOptions) -> str:
    """clean/model.onnx → final/model.onnx."""
    target = empty_folder(options.work / "final")
    with Spill(target / SPILL_FILE) as spill:
        graph = OnnxGraph(load_onnx_model(options.work / "clean" / MODEL_FILE), spill)
        if options.scheme == "w8a8":
            tokenizer = Tokenizer.from_file(str(options.work / sources.TOKENIZER_FILE))
            with refusing(f"{options.work.name}: its tokenizer can't read a page of text"):
                ids = tokenizer.encode(CALIBRATION.read_text()).ids
            shape = read_shape(options.work).graph
            graph, outcome = quantise_to_integers(
                graph, options.work, shape, ids, options.arithmetic
            )
            said = str(outcome)
        else:
            count = 0
            if options.scheme != "none":
                count = quantise(graph, options.scheme) + quantise_experts(graph, options.scheme)
            said = f"{count} matrices"
        said += graft_adapters(graph, options)
        files = save_model(graph.finish(), target / MODEL_FILE)
    size = sum(file.stat().st_size for file in files)
    return f"{said}, {len(graph.node_list)} nodes, {size / 1e6:.1f} MB"


def run_validate(options: ExportOptions) -> str:
    """clean/ and final/ against torch → findings.json.

    Raises:
        QualityRefused: the graph chose other tokens than torch, or is outside the gate.
    """
    refuse_other_adapters(options)
    (options.work / "findings.json").unlink(missing_ok=True)
    source, shape = sources.read_source(options.work), read_shape(options.work)
    with WeightFile(options.work / WEIGHT_FILE) as weights:
        return _validate(options, source, shape, load_torch_model(source, weights))


def _validate(options: ExportOptions, source: sources.ModelSource, shape: Shape, model: Any) -> str:
    """See `run_validate`."""
    context = shape.graph.context_length
    page = TEXT.read_text()
    with refusing(f"{source.described}: its tokenizer can't read a page of English"):
        tokenizer = Tokenizer.from_file(str(options.work / sources.TOKENIZER_FILE))
        ids = tokenizer.encode(page).ids[: min(options.text_tokens, context - PAGE_SPARE)]
    refuse_poor_page(ids, context)
    match = _greedy(options, shape.graph, model, ids)
    graph = msgspec.structs.replace(shape.graph, num_adapters=len(options.adapters))
    session = GraphSession(options.work / "final", graph, rows=8, capacity=len(ids) + PAGE_SPARE)
    reference = shown(logits_in_pieces(model, ids), "measure", -(-len(ids) // TOKENS))
    quality = measure_quality(reference, session, ids)
    with_adapters = measure_adapters(options, model, session, ids)
    named = {f"{source.model_id}:{name}": found for name, found in with_adapters.items()}
    for model_id, found in {source.model_id: quality, **named}.items():
        judge(f"{model_id} in {options.scheme}", found, options.gate)
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
        adapters=tuple(with_adapters.values()),
    )
    write_record(options.work / "findings.json", findings)
    worst = max((found.mean_kl for found in with_adapters.values()), default=None)
    return figures(quality) + ("" if worst is None else f"; with adapters at most {worst:.5f}")


def _greedy(
    options: ExportOptions, graph: contract.Graph, model: Any, ids: list[int]
) -> GreedyMatch:
    """Compare the unquantised graph's tokens with torch's, one by one."""
    session = GraphSession(options.work / "clean", graph, rows=1, capacity=256, prepack=False)
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
    refuse_other_adapters(options)
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
        graph=msgspec.structs.replace(shape.graph, num_adapters=len(options.adapters)),
        adapters=describe_adapters(options, findings.adapters),
        tokens=contract.Tokens(bos_id=source.bos_id, eos_ids=source.eos_ids),
        quantisation=contract.Quantisation(
            scheme=options.scheme,
            arithmetic=options.arithmetic if options.scheme == "w8a8" else "any",
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
    "clean": Step(run_clean, ("traced/model.onnx", f"traced/{WEIGHTS}", f"traced/{WEIGHT_FILE}")),
    "quantise": Step(run_quantise, ("shape.json", "tokenizer.json", SITES, *CLEAN)),
    "validate": Step(run_validate, (*DESCRIBED, GRAFTED, *CLEAN, *FINAL)),
    "publish": Step(run_publish, (*DESCRIBED, GRAFTED, "findings.json", *FINAL)),
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
