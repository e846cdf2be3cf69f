"""Try to export a tiny random model of every type of language model, and tabulate what came of it.

Each is compared with the model in torch that it was saved from, token by token through the cache,
past every window. The table is kept in models/README.md.
"""

import argparse
import io
import shutil
import tempfile
import traceback
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import torch
import transformers
from tqdm import tqdm
from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
    MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES,
)

from bench.families.tiny import VARIANTS, save_tiny, tiny_config
from export.__main__ import main as export
from export.records import read_findings, read_shape
from export.session import GraphSession
from export.validate import compare_greedy

TABLE: Final = Path("models/README.md")
LONGEST: Final = 150
BEGIN, END = "<!-- families -->\n", "<!-- end of families -->\n"


@dataclass(frozen=True)
class Row:
    """What became of one type."""

    name: str
    kl: float | None = None
    tokens: str = ""
    said: str = ""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Take which types are tried, and whether the table is written."""
    parser.add_argument("types", nargs="*", help="default: all")
    parser.add_argument("--write", action="store_true", help=f"put the table into {TABLE}")
    parser.add_argument("--trace", action="store_true", help="print tracebacks")


def run(args: argparse.Namespace) -> None:
    """Try them, and print or write the table."""
    torch.set_num_threads(1)
    transformers.logging.set_verbosity_error()
    types = args.types or [*MODEL_FOR_CAUSAL_LM_MAPPING_NAMES]
    if not args.types:
        types += [t for t in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES if t not in types]
    rows = []
    for model_type in tqdm(types):
        for variant, changes in VARIANTS.get(model_type, {"": {}}).items():
            name = f"{model_type}, {variant}" if variant else model_type
            rows.append(attempt(name, model_type, changes, trace=args.trace))
            tqdm.write(" | ".join(_cells(rows[-1])))
    if args.write:
        text = TABLE.read_text()
        head, _, rest = text.partition(BEGIN)
        tail = rest.partition(END)[2]
        TABLE.write_text(head + BEGIN + "".join(_table(rows)) + END + tail)
    print(_count(rows))


def _count(rows: list[Row]) -> str:
    """How many types are exported."""
    types = {row.name.partition(",")[0] for row in rows}
    exported = {row.name.partition(",")[0] for row in rows if row.kl is not None}
    return f"{len(exported)} of {len(types)} types are exported"


def attempt(name: str, model_type: str, changes: dict[str, object], *, trace: bool) -> Row:
    """Export one tiny model."""
    folder = Path(tempfile.mkdtemp())
    said = io.StringIO()
    try:
        with redirect_stdout(said), redirect_stderr(said):
            if model_type not in CONFIG_MAPPING_NAMES:
                return Row(name, said="Transformers has its name, but no model")
            try:
                model = save_tiny(folder / "source", tiny_config(model_type, **changes))
            except Exception as error:  # noqa: BLE001 - its code, not ours
                first = str(error).strip().partition("\n")[0][:LONGEST]
                return Row(name, said=f"not tried, it can't be made in small: {first}")
            arguments = [str(folder / "source"), "--out", str(folder / "out"), "--keep-work"]
            refused = export([*arguments, "--quantise", "none"])
            if refused:
                last = said.getvalue().strip().splitlines()[-1]
                return Row(name, said=last.replace(f"{folder}/", ""))
            return _compared(name, folder, model)
    except Exception as error:  # noqa: BLE001 - the table says it
        if trace:
            tqdm.write(traceback.format_exc())
        first = str(error).strip().partition("\n")[0][:LONGEST]
        return Row(name, said=f"fails: {type(error).__name__}: {first}")
    finally:
        shutil.rmtree(folder)


def _compared(name: str, folder: Path, model: transformers.PreTrainedModel) -> Row:
    """The exported graph beside the model that was saved, which the exporter hasn't seen."""
    work = folder / ".work" / "out"
    findings, shape = read_findings(work), read_shape(work).graph
    session = GraphSession(folder / "out", shape, rows=1, capacity=shape.context_length)
    page = torch.randint(2, 300, (100,), generator=torch.Generator().manual_seed(0)).tolist()
    match = compare_greedy(model, session, page, context=shape.context_length)
    tokens = f"{match.tokens - match.differing} of {match.tokens}"
    return Row(name, kl=findings.quality.mean_kl, tokens=tokens)


def _table(rows: list[Row]) -> Iterator[str]:
    yield "| type | mean KL from torch | tokens equal to torch's | |\n|---|---|---|---|\n"
    for row in rows:
        yield f"| {' | '.join(_cells(row))} |\n"
    yield f"\n{_count(rows)}.\n"


def _cells(row: Row) -> tuple[str, str, str, str]:
    kl = "" if row.kl is None else f"{max(row.kl, 0.0):.0e}"
    return row.name, kl, row.tokens, row.said
