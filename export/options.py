"""What the command line may ask of an export."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from app.model_files import Arithmetic
from export.validate import TEXT_TOKENS


@dataclass(frozen=True)
class ExportOptions:
    """What the command line asked for."""

    source: str | None
    out: Path
    work: Path
    scheme: Literal["none", "w8a8", "int8", "int4"] = "int8"
    encoder_scheme: Literal["none", "w8a8", "int8", "int4"] = "none"
    """The scheme if the source is an encoder."""
    arithmetic: Arithmetic = "any"
    """How `w8a8` multiplies: `u8s8` is faster on the processors that compute it exactly."""
    suffix: str = ""
    """Appended to the model's name."""
    adapters: tuple[tuple[str, Path], ...] = ()
    """Names and folders of the adapters that are served beside the model, in their order."""
    dtype: Literal["float32", "float16"] = "float32"
    gate: float | None = None
    """The largest distance from torch; None: `GATE`, or an encoder's own."""
    text_tokens: int = TEXT_TOKENS
    keep_work: bool = True
    """Whether files stay that no later step reads."""
