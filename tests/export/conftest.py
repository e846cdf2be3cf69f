"""A table of every export in this run, printed at the end of the test log."""

from collections.abc import Callable

import pytest
import torch

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
