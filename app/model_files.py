"""What the manifests of all kinds of models say: which model it is, and its files.

Knows no kind.
"""

import hashlib
from typing import Annotated, Final, Literal

import msgspec
from msgspec import Meta

FORMAT: Final = 1

# Limits are far above any model: a manifest beyond them is damaged, and would take all memory.
FileName = Annotated[str, Meta(pattern=r"^(?!\.{1,2}$)[^/\\\x00]{1,255}$")]
"""A file in the model's own folder."""
Arithmetic = Literal["any", "u8s8"]
"""What the processor must compute exactly; `u8s8`: products of uint8 and int8, see
`app.runtime.arithmetic`."""
TokenId = Annotated[int, Meta(ge=0, lt=2**24)]


class ModelFile(msgspec.Struct, frozen=True, kw_only=True):
    """One file of the folder."""

    size_bytes: Annotated[int, Meta(ge=0)]
    sha256: str


class Described(msgspec.Struct, frozen=True, kw_only=True):
    """What the manifests of all kinds say."""

    format: int = FORMAT
    model_id: str
    """`publisher/name`, as clients write it."""
    description: str = ""
    architecture: str
    """Transformers' `model_type`."""
    source: str
    """Where the weights came from, with the version or revision."""
    license: str = ""
    created: str
    """ISO 8601, UTC."""
    files: dict[FileName, ModelFile]

    @property
    def size_bytes(self) -> int:
        """Bytes on disk."""
        return sum(file.size_bytes for file in self.files.values())

    @property
    def digest(self) -> str:
        """SHA-256 over the files' names and contents, in hex."""
        lines = [f"{name} {file.sha256}\n" for name, file in sorted(self.files.items())]
        return hashlib.sha256("".join(lines).encode()).hexdigest()
