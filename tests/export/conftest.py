"""A table of every export in this run, printed at the end of the log; a model with adapters."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import LlamaForCausalLM

from export.__main__ import main
from tests.export.tiny import CONFIGS, save_tiny
from tests.export.tiny_adapters import Tensors, factors, write_adapter

ROWS = pytest.StashKey[list[str]]()
HEADER = (
    f"{'architecture':<14}{'nodes':>6}{'max |Δlogit|':>14}{'tokens':>8}{'KL int8':>10}"
    f"{'alone vs batch of 8':>21}{'s':>6}"
)


@pytest.fixture(autouse=True, scope="package")
def one_torch_thread() -> None:
    """Tiny tensors: two threads spend their time waiting for each other."""
    torch.set_num_threads(1)


@pytest.fixture
def export_row(request: pytest.FixtureRequest) -> Callable[[str], None]:
    """Add a line to the table."""
    return request.config.stash.setdefault(ROWS, []).append


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    rows = config.stash.get(ROWS, [])
    if rows:
        terminalreporter.section("exported architectures, against torch")
        for row in [HEADER, *rows]:
            terminalreporter.write_line(row)


RANKS, ALPHA = (4, 6), 6
MODULES = (("q_proj", "v_proj", "o_proj", "down_proj"), ("k_proj", "up_proj"))
CHAT_TEMPLATE = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}assistant:"


@dataclass(frozen=True)
class AdaptedModel:
    """A tiny model that was exported, unquantised, with the adapters `pirate` and `poet`."""

    models_dir: Path
    folder: Path
    source: Path
    tensors: tuple[Tensors, ...]

    def fresh_model(self) -> Any:
        """The model in torch, without adapters."""
        return LlamaForCausalLM.from_pretrained(self.source, attn_implementation="eager").eval()


@pytest.fixture(scope="session")
def adapted(tmp_path_factory: pytest.TempPathFactory) -> AdaptedModel:
    folder = tmp_path_factory.mktemp("adapted")
    model = save_tiny(folder / "base", CONFIGS["llama"]())
    (folder / "base" / "chat_template.jinja").write_text(CHAT_TEMPLATE)
    tensors = tuple(
        factors(model, modules, rank, seed=rank)
        for modules, rank in zip(MODULES, RANKS, strict=True)
    )
    pirate, poet = (write_adapter(folder / f"adapter{i}", each) for i, each in enumerate(tensors))
    arguments = [str(folder / "base"), "--models-dir", str(folder / "models")]
    arguments += ["--quantise", "none"]
    assert main([*arguments, "--adapter", f"pirate={pirate}", "--adapter", f"poet={poet}"]) == 0
    out = folder / "models" / "local--base"
    return AdaptedModel(folder / "models", out, folder / "base", tensors)
