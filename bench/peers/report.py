"""Present a comparison as a table in Markdown and a plot in SVG. Knows only the JSON result."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bench.peers.bandwidth import floor_ms

Result = dict[str, Any]
NONE = "–"


def markdown(result: Result) -> str:
    """The table, with a column per engine, ours first; ratios are our speed ÷ theirs."""
    engines = [engine for engine in result["engines"] if not engine["cannot"]]
    rows = [
        ["", *(engine["label"] for engine in engines), "floor"],
        ["---"] * (len(engines) + 2),
        ["mean KL from fp32", *(_quality_cell(e, "mean_kl", "{:.4f}") for e in engines), ""],
        ["top-1 agrees", *(_quality_cell(e, "top1_agreement", "{:.3f}") for e in engines), ""],
        ["perplexity", *(_quality_cell(e, "perplexity", "{:.2f}") for e in engines), ""],
        ["weights file, MB", *(_millions(e["weights_bytes"]) for e in engines), ""],
        ["memory, loaded, MB", *(_millions(e["loaded_bytes"]) for e in engines), ""],
        ["memory, peak, MB", *(_millions(e["peak_bytes"]) for e in engines), ""],
    ]
    ours = engines[0]
    for batch, context in result["cells"]:
        name = f"decode {batch}x{context}"
        floor = _floor_ms(result, ours, batch, context)
        rows.append(
            [f"decode, {batch} × {context}"]
            + [_cell(engine, ours, name, batch) for engine in engines]
            + [f"{floor:.1f} ms"]
        )
    for length in result["prefill"]:
        name = f"prefill {length}"
        cells = [_cell(engine, ours, name, length) for engine in engines]
        rows.append([f"prefill, {length}", *cells, ""])
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join([*lines, "", *_notes(result)]) + "\n"


def _cell(engine: Result, ours: Result, name: str, tokens: int) -> str:
    """`36.1 ms, 222/s, **1.44 ×**`: a step or prompt, its tokens per second, our speed ÷ theirs."""
    if name not in engine["ms"]:
        return NONE
    ms = engine["ms"][name]
    text = f"{ms:.1f} ms, {tokens / ms * 1e3:.0f}/s"
    if engine is ours or name not in ours["ms"]:
        return text
    return f"{text}, **{ms / ours['ms'][name]:.2f} ×**"


def _quality_cell(engine: Result, key: str, form: str) -> str:
    return form.format(engine["quality"][key]) if engine["quality"] else NONE


def _millions(count: int) -> str:
    return f"{count / 1e6:.0f}" if count else NONE


def _floor_ms(result: Result, engine: Result, batch: int, context: int) -> float:
    return floor_ms(
        engine["weights_bytes"],
        engine["kv_bytes_per_token"],
        batch,
        context,
        result["bytes_per_s"],
    )


def _notes(result: Result) -> Iterator[str]:
    """What the table doesn't say: the machine, HTTP, and every refusal with its reason."""
    yield (
        f"{result['machine']}, {result['threads']} threads. "
        f"Median of {result['rounds']} rounds × {result['steps']} steps "
        "(prompts: one per round), engines in turn; greedy. Milliseconds of a step (one token for "
        "each row) or a prompt; in bold our speed ÷ theirs. Floor: reading our weights and cache "
        f"at {result['bytes_per_s'] / 1e9:.1f} GB/s."
    )
    for engine in result["engines"]:
        if engine["cannot"]:
            yield f"\n{engine['label']} is not measured: {engine['cannot']}"
        if engine["no_quality"]:
            yield f"\n{engine['label']} gives no logits: {engine['no_quality']}"
        for cell, reason in engine["refused"].items():
            yield f"\n{engine['label']}, {cell}: {reason}"
    if "http" in result:
        yield "\n| over HTTP | streams | tokens/s | TTFT ms | ITL ms |\n|---|---|---|---|---|"
        for row in result["http"]:
            if "cannot" in row:
                yield f"| {row['server']} | {NONE} | {row['cannot']} | | |"
            else:
                yield (
                    f"| {row['server']} | {row['streams']} | {row['tokens_per_s']:.1f} "
                    f"| {row['ttft_ms']:.0f} | {row['itl_ms']:.1f} |"
                )


def plot(result: Result, out: Path) -> None:
    """Plot tokens per second over batch size, one panel per context, and our memory floor."""
    import matplotlib as mpl  # noqa: PLC0415 - only the plot needs it
    from matplotlib.figure import Figure  # noqa: PLC0415
    from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter  # noqa: PLC0415

    mpl.rcParams["svg.hashsalt"] = "compare"  # the same figures give the same file
    contexts = sorted({context for _, context in result["cells"]})
    figure = Figure(figsize=(4.2 * len(contexts) + 2.4, 4.4), layout="constrained")
    parts = figure.subplots(1, len(contexts), sharey=True, squeeze=False)[0]
    engines = [engine for engine in result["engines"] if not engine["cannot"]]
    for part, context in zip(parts, contexts, strict=True):
        batches = sorted(batch for batch, other in result["cells"] if other == context)
        for place, engine in enumerate(engines):
            known = [b for b in batches if f"decode {b}x{context}" in engine["ms"]]
            rates = [b / engine["ms"][f"decode {b}x{context}"] * 1e3 for b in known]
            ours = engine["name"].startswith("ours")
            part.plot(
                known,
                rates,
                marker="o",
                markersize=4,
                linewidth=2.4 if ours else 1.4,
                color=f"C{place}",
                label=engine["label"] + _kl_label(engine),
            )
        floors = [b / _floor_ms(result, engines[0], b, context) * 1e3 for b in batches]
        part.plot(batches, floors, "--", color="black", linewidth=1, label="memory floor, ours")
        part.set_xscale("log", base=2)
        part.set_yscale("log")
        part.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        part.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        part.yaxis.set_minor_formatter(NullFormatter())
        part.set_xticks(batches, [str(batch) for batch in batches])
        part.set_xlabel("rows in the batch")
        part.set_title(f"{context} tokens of context")
        part.grid(visible=True, which="major", linewidth=0.4)
    parts[0].set_ylabel("tokens per second")
    figure.legend(*parts[0].get_legend_handles_labels(), loc="outside right center", frameon=False)
    figure.savefig(out, metadata={"Date": None})


def _kl_label(engine: Result) -> str:
    """The quality, for the legend: no speed is shown without it."""
    return f", KL {engine['quality']['mean_kl']:.4f}" if engine["quality"] else ""
