"""`python -m export [SOURCE]`: make a model folder that the server can load.

Runs the steps of `steps.py` with a progress bar and prints a summary. A model that is refused
leaves nothing at `--out`; the reason is the last line printed. Knows nothing about models.
"""

import gc
import shutil
import sys
import time
from argparse import Namespace
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

import onnxruntime as ort
from tqdm import tqdm

from app.encoder_manifest import EncoderManifest
from app.manifest import folder_name, read_any_manifest
from app.runtime.arithmetic import multiplies_exactly
from app.runtime.heap import trim_heap
from export.command_line import PROFILES, parse
from export.encoders.closeness import figures as encoder_figures
from export.encoders.steps import ENCODER_STEPS
from export.errors import AtWork, ExportError
from export.memory import PeakMemory
from export.options import ExportOptions
from export.records import Findings, figures, read_findings, read_shape
from export.source import model_id_of, read_source
from export.steps import STEPS, Step
from export.validate import QUICK_TOKENS, TEXT_TOKENS
from export.work_folder import held

STOPPED: Final = 130
"""What a shell says of a command that Ctrl-C ended."""


@dataclass(frozen=True)
class Row:
    """What became of one step."""

    step: str
    seconds: float
    peak: PeakMemory
    said: str


def main(arguments: list[str] | None = None) -> int:
    """Run the chosen steps; returns 0 if they succeeded, 1 if the model was refused.

    An export that is interrupted keeps the files of its finished steps, and returns `STOPPED`.
    """
    args = parse(arguments)
    scheme, suffix = PROFILES[args.profile] if args.profile else (args.quantise, "")
    out: Path = args.out or args.models_dir / folder_name(model_id_of(args.source) + suffix)
    whole = not (args.only or args.first)
    options = ExportOptions(
        source=args.source,
        out=out,
        work=out.parent / ".work" / out.name,
        scheme=scheme or best_scheme(args.dtype),
        adapters=tuple(args.adapter),
        encoder_scheme=encoder_scheme(args.profile, args.quantise),
        arithmetic=args.arithmetic or ("u8s8" if multiplies_exactly() else "any"),
        suffix=suffix,
        dtype=args.dtype,
        gate=args.gate,
        text_tokens=QUICK_TOKENS if args.quick else TEXT_TOKENS,
        keep_work=args.keep_work or not whole,
    )
    try:
        with held(options.work):
            return carry_out(args, options)
    except AtWork as refusal:
        print(f"refused: {refusal}", file=sys.stderr)
        return 1


def carry_out(args: Namespace, options: ExportOptions) -> int:
    """Run all steps, one alone or those from one on, and say what became of them."""
    whole = not (args.only or args.first)
    chosen = [args.only] if args.only else list(STEPS)[list(STEPS).index(args.first or "resolve") :]
    rows: list[Row] = []
    failed: ExportError | None = None
    stopped: str | None = None
    gc.freeze()  # what the imports left: dozens of collections would go through it, 0.2 s each
    try:
        failed = run(options, chosen, rows)
        summarise(options, rows)
    except KeyboardInterrupt:
        # an interrupted resolve has finished nothing, and the summary comes after everything
        stopped = chosen[len(rows)] if whole and 0 < len(rows) < len(chosen) else None
        if stopped is None:
            raise
        print(
            f"stopped in {stopped}: the same command with --from {stopped} goes on from there, "
            f"with the files of the steps before it in {options.work}",
            file=sys.stderr,
        )
        return STOPPED
    finally:
        gc.unfreeze()
        published = bool(rows) and rows[-1].step == "publish" and args.only is None
        if not args.keep_work and stopped is None and (whole or published):
            shutil.rmtree(options.work, ignore_errors=True)
    if failed is not None:
        print(f"refused: {failed}", file=sys.stderr)
    return 0 if failed is None else 1


def best_scheme(dtype: str) -> Literal["w8a8", "int8"]:
    """What 8 bits are best served in on this machine: a GPU has no kernel for integer products."""
    on_cpu = dtype == "float32" and "CUDAExecutionProvider" not in ort.get_available_providers()
    return "w8a8" if on_cpu else "int8"


def encoder_scheme(
    profile: str | None, asked: Literal["none", "w8a8", "int8", "int4"] | None
) -> Literal["none", "w8a8", "int8", "int4"]:
    """What an encoder's weights are stored in: vectors of float32 agree with everybody's."""
    if profile == "fast":
        return best_scheme("float32")
    return asked or "none"


def steps_of(work: Path) -> dict[str, Step]:
    """The steps of the kind of model that `resolve` found."""
    if (work / "source.json").is_file() and read_source(work).kind != "text":
        return ENCODER_STEPS
    return STEPS


def run(options: ExportOptions, chosen: list[str], rows: list[Row]) -> ExportError | None:
    """Run steps, append a row for each, and return any refusal."""
    with tqdm(
        chosen, unit="step", bar_format="{desc:<10}|{bar:30}| {n}/{total} [{elapsed}]"
    ) as bar:
        for name in bar:
            bar.set_description(name)
            start = time.perf_counter()
            step = steps_of(options.work)[name] if name != "resolve" else STEPS[name]
            missing = step.missing_input(options.work)
            if missing is not None:
                return ExportError(f"{name}: {missing} is missing, run the step before it")
            with PeakMemory() as peak:
                try:
                    said = step.run(options)
                except ExportError as error:
                    return error
            rows.append(Row(name, time.perf_counter() - start, peak, said))
            trim_heap()
    return None


def summarise(options: ExportOptions, rows: list[Row]) -> None:
    """Print what each step did and, once a model was published, what it is like."""
    for row in rows:
        print(f"{row.step:<10}{row.seconds:7.1f} s {row.peak}  {row.said}")
    if not rows or rows[-1].step != "publish":
        return
    manifest = read_any_manifest(options.out)
    if isinstance(manifest, EncoderManifest):
        lines = describe_encoder(manifest)
        print("\n" + "\n".join(f"{name:<10}{text}" for name, text in lines.items()))
        return
    shape, findings = read_shape(options.work), read_findings(options.work)
    kv_kb = manifest.graph.kv_bytes_per_token / 1024
    lines = {
        "model": f"{manifest.model_id}, {manifest.architecture}, {manifest.source}",
        "weights": f"{manifest.quantisation.scheme}, {manifest.size_bytes / 1e6:.1f} MB",
        "cache": f"{manifest.graph.kv_dtype}, {kv_kb:.1f} KB per token, "
        f"context {manifest.graph.context_length}",
        "quality": figures(findings.quality),
        **{f":{adapter.name}": figures(adapter.quality) for adapter in manifest.adapters},
        "tokens": f"{findings.greedy_tokens} greedy tokens of the unquantised graph equal torch's "
        f"({findings.greedy_ties} ties, largest difference {findings.greedy_max_difference:.2g})",
        "batch": independence(findings),
        "rotary": f"in attention for {shape.rotary_in_attention} of "
        f"{manifest.graph.num_layers} layers",
        "files": ", ".join(f"{n} {f.size_bytes / 1e6:.1f}" for n, f in manifest.files.items()),
    }
    if options.text_tokens < TEXT_TOKENS:
        lines["measured"] = (
            f"on {manifest.quality.text_tokens} tokens of {TEXT_TOKENS} (--quick): "
            "`llmhost pull` without it measures on all of them"
        )
    if options.dtype == "float16":
        lines["untested"] = "measured on the CPU; float16 is meant for CUDA, which was not run"
    print()
    for name, text in lines.items():
        print(f"{name:<10}{text}")


def describe_encoder(manifest: EncoderManifest) -> dict[str, str]:
    """What a published encoder is like, line by line."""
    graph = manifest.graph
    what = "scores" if manifest.kind == "reranking" else f"vectors of {graph.width} numbers"
    prompts = ", ".join(manifest.prompts) or "none"
    return {
        "model": f"{manifest.model_id}, {manifest.architecture}, {manifest.source}",
        "weights": f"{manifest.scheme}, {manifest.size_bytes / 1e6:.1f} MB",
        "makes": f"{what}, of texts of up to {graph.context_length} tokens"
        + (", of length 1" if manifest.normalised else ""),
        "pooling": manifest.pooling or "none",
        "prompts": prompts,
        "quality": encoder_figures(manifest.closeness),
        "files": ", ".join(f"{n} {f.size_bytes / 1e6:.1f}" for n, f in manifest.files.items()),
    }


def independence(findings: Findings) -> str:
    """What a row's logits depend on besides its own tokens."""
    if findings.batch_difference:
        return f"a row's logits differ by {findings.batch_difference:.2g} alone and together"
    if not findings.min_first_chunk:
        difference = f"{findings.chunk_difference:.2g}"
        return f"a row's logits differ by {difference} with the cuts of its prompt"
    said = "rows are bitwise the same alone and together, wherever prompts are cut"
    if findings.chunk_difference:
        said += f", their first chunk having {findings.min_first_chunk} tokens"
    return said


if __name__ == "__main__":
    sys.exit(main())
