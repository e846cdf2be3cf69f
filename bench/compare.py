"""Our engine and others on this machine, in one run: speed, quality and memory side by side.

Every engine runs in a process of its own, with the same weights, prompts and number of threads, and
chooses tokens greedily. A figure is the median of the steps of all rounds (`peers.rounds`). The
result is written as a table, as JSON and as a plot.
"""

import argparse
import json
import os
import platform
import re
import signal
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from bench.peers.bandwidth import read_bandwidth
from bench.peers.child import Child
from bench.peers.http_load import http_load, label
from bench.peers.programs.protocol import SPARE
from bench.peers.recipes import PEERS, SHAPE_NAMES, Place
from bench.peers.report import markdown, plot
from bench.peers.rounds import WARM_UP_STEPS, Comparison, Entry, Plan

PROGRAMS = "bench.peers.programs"
DEFAULT_CELLS = ["1x128", "2x128", "4x128", "8x128", "16x128", "1x1024", "4x1024", "8x1024"]
FULL_CELLS = [f"{b}x{c}" for c in (128, 1024, 4096) for b in (1, 2, 4, 8, 16, 32)]
QUIET_LOAD = 0.5
"""Load average above which a warning is printed: with two other processes on two cores, llama.cpp
took 1,080 ms per step instead of 7."""
DEFAULT_PREFILL, FULL_PREFILL = [128, 512], [128, 512, 2048]
SHAPE_CELLS = ["1x128", "8x128"]
SHAPE_PREFILL = [512]
DEFAULT_MODEL = Path("models/HuggingFaceTB--SmolLM2-135M-Instruct")
FEATURES = {
    "avx2": "AVX2",
    "avx_vnni": "AVX-VNNI",
    "avx512_vnni": "AVX-512 VNNI",
    "amx_int8": "AMX",
    "asimddp": "dot products",
    "i8mm": "I8MM",
}
"""What /proc/cpuinfo calls the instructions that integer products run on, and their names."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `python -m bench compare`."""
    parser.add_argument(
        "--into", type=Path, required=True, help="the folder that `bench peers` filled"
    )
    parser.add_argument(
        "--model",
        type=Path,
        nargs="+",
        default=[DEFAULT_MODEL],
        help="our model folders; ratios are to the first",
    )
    parser.add_argument(
        "--shape",
        choices=SHAPE_NAMES,
        help="instead: a model of this size with random weights, made in --into, beside llama.cpp",
    )
    parser.add_argument("--peers", nargs="*", choices=list(PEERS), default=list(PEERS))
    parser.add_argument("--cells", nargs="+", type=cell, help="batch x context, such as 8x1024")
    parser.add_argument("--prefill", nargs="*", type=int, help="lengths of prompts")
    parser.add_argument("--full", action="store_true", help="batch 1 … 32 × context 128 … 4096")
    parser.add_argument("--steps", type=int, default=8, help="timed steps per cell and round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument(
        "--sampled", action="store_true", help="also run ours at the sampling defaults"
    )
    parser.add_argument(
        "--no-quality", action="store_true", help="don't measure quality over the text"
    )
    parser.add_argument("--http", action="store_true", help="also measure load over HTTP")
    parser.add_argument("--llama-server", type=Path, help="binary for --http; default: from --into")
    parser.add_argument("--out", type=Path, default=Path("bench/compare"), help=".json .md .svg")


def cell(text: str) -> tuple[int, int]:
    """`8x1024` as (batch, context)."""
    match = re.fullmatch(r"([1-9]\d*)x([1-9]\d*)", text)
    if match is None:
        raise argparse.ArgumentTypeError(f"{text!r} is not batch x context, such as 8x1024")
    return int(match[1]), int(match[2])


def run(arguments: argparse.Namespace) -> None:
    """Measure, print the table, and write it as Markdown, JSON and SVG."""
    tokens = arguments.rounds * (WARM_UP_STEPS + arguments.steps)
    if tokens >= SPARE:
        raise SystemExit(
            f"{tokens} steps per cell in all rounds, but a row has room for {SPARE - 1}"
        )
    place = Place(arguments.into.resolve())
    if arguments.shape:
        _make_shape(arguments, place)
    labels = [label(model) for model in arguments.model]
    if len(set(labels)) < len(labels):
        raise SystemExit(
            f"--model: two would have the same label in the table: {', '.join(labels)}"
        )
    if not arguments.no_quality and not place.shared.reference.is_file():
        raise SystemExit(f"{place.shared.reference} is missing: run `python -m bench peers` first")
    # `timeout` and CI end programs like this; the stopped child processes must not stay behind
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended by SIGTERM"))
    busy = os.getloadavg()[0]
    if busy > QUIET_LOAD:
        print(
            f"load average {busy:.1f}: libraries with spinning threads are slow beside other work"
        )
    bytes_per_s = read_bandwidth(arguments.threads)
    print(f"memory is read at {bytes_per_s / 1e9:.1f} GB/s", flush=True)
    plan = _plan(arguments)
    comparison = Comparison(plan, _entries(arguments, place))
    try:
        for entry in comparison.alive:
            comparison.load(entry)
        comparison.decode()
        comparison.prefills()
        comparison.memory()
        if not arguments.no_quality:
            comparison.qualities(place.shared)
    finally:
        for entry in comparison.entries:
            if entry.child is not None:
                entry.child.end()
    result: dict[str, Any] = {
        "machine": processor(),
        "shape": arguments.shape,
        "bytes_per_s": bytes_per_s,
        "load_average_before": busy,
        **asdict(plan),
        "engines": [entry.record() for entry in comparison.entries],
    }
    _write(result, arguments.out)
    if arguments.http:
        server = arguments.llama_server or place.llama_server()
        result["http"] = http_load(
            arguments.model, server, place.shared.gguf, arguments.threads, arguments.rounds
        )
        _write(result, arguments.out)
    print(arguments.out.with_suffix(".md").read_text())


def _make_shape(arguments: argparse.Namespace, place: Place) -> None:
    """Have the shape's files made, and let `arguments` ask for them."""
    if arguments.http:
        raise SystemExit("--http measures the default model; leave it out with --shape")
    folder = place.shape(arguments.shape)
    command = ("bench.peers.shapes", arguments.shape, str(folder), DEFAULT_MODEL / "tokenizer.json")
    subprocess.run([sys.executable, "-m", *command], check=True)  # noqa: S603
    arguments.model = [folder / name for name in ("w8a8", "int4")]
    arguments.no_quality = True
    arguments.cells = arguments.cells or [cell(c) for c in SHAPE_CELLS]
    arguments.prefill = SHAPE_PREFILL if arguments.prefill is None else arguments.prefill


def _write(result: dict[str, Any], out: Path) -> None:
    """Write the JSON first: whatever fails afterwards, table and plot can be made from it."""
    out.with_suffix(".json").write_text(json.dumps(result, indent=1))
    out.with_suffix(".md").write_text(markdown(result))
    plot(result, out.with_suffix(".svg"))


def _plan(arguments: argparse.Namespace) -> Plan:
    full = arguments.full
    default = FULL_PREFILL if full else DEFAULT_PREFILL
    return Plan(
        cells=arguments.cells or [cell(c) for c in (FULL_CELLS if full else DEFAULT_CELLS)],
        prefill=default if arguments.prefill is None else arguments.prefill,
        rounds=arguments.rounds,
        steps=arguments.steps,
        threads=arguments.threads,
    )


def _entries(arguments: argparse.Namespace, place: Place) -> list[Entry]:
    """Our engine, once per model folder and sampling mode, then the peers in their order."""
    python = Path(sys.executable)
    entries = []
    for model in arguments.model:
        for mode in ["greedy", "sampled"] if arguments.sampled else ["greedy"]:
            name = label(model) + (", sampled" if mode == "sampled" else "")
            child = Child(python, f"{PROGRAMS}.ours", place.log(f"ours-{model.name}"), mode)
            entries.append(Entry(name, name, child, str(model.resolve())))
    missing = place.missing()
    if arguments.shape:
        for kind in ("Q8_0", "Q4_1"):
            name = f"llama_cpp_{kind}"
            child = Child(place.bin("llama_cpp"), f"{PROGRAMS}.llamacpp", place.log(f"run-{name}"))
            model = place.shape(arguments.shape) / f"{kind}.gguf"
            entries.append(Entry(name, f"llama.cpp {kind}", child, str(model)))
        return entries
    for name in arguments.peers:
        peer = PEERS[name]
        child = Child(
            place.bin(peer.environment), f"{PROGRAMS}.{peer.program}", place.log(f"run-{name}")
        )
        if name in missing:
            entries.append(Entry(name, peer.label, cannot=missing[name]))
        else:
            entries.append(Entry(name, peer.label, child, str(place.model(name))))
    return entries


def processor() -> str:
    """The name of this machine's processor, with what it has for products of integers."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    told = {key.strip(): value.strip() for key, _, value in (x.partition(":") for x in lines)}
    flags = (told.get("flags") or told.get("Features") or "").split()
    name = told.get("model name") or platform.processor() or platform.machine()
    features = ", ".join(spoken for flag, spoken in FEATURES.items() if flag in flags)
    return f"{name} with {features}" if features else name
