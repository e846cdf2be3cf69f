"""Judge an attack by the limits that are promised, and write it as a table.

Knows only the figures.
"""

import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from bench.load import percentile
from bench.server import END_S

GAP_FACTOR: Final = 3.0
"""The p99 gap of honest streams stays below so many calm ones, during each shape."""
LIVE_MS: Final = 100.0
"""`/health/live` always answers within this."""
MEMORY_FACTOR: Final = 1.05
"""Resident memory without the caches afterwards, against before."""


@dataclass(frozen=True)
class Row:
    """How the honest ones fared during one shape, and what the attackers got."""

    name: str
    gap_p99_ms: float
    gap_max_ms: float
    first_token_max_ms: float
    """The longest wait for a stream's first token."""
    sign_in_ms: float
    live_median_ms: float
    live_p99_ms: float
    live_max_ms: float
    memory_mb: float
    """Resident at most, without the caches."""
    caches_mb: float
    errors: list[str]
    """Of the honest ones."""
    seen: Mapping[str, int] = field(default_factory=dict)
    """What came of the attempts: a status, or in words."""


def row(
    name: str,
    *,
    gaps_s: Sequence[float],
    first_tokens_s: Sequence[float],
    sign_in_s: float,
    live_s: Sequence[float],
    memory: Sequence[tuple[float, float]],
    errors: Sequence[str],
    seen: Mapping[str, int],
) -> Row:
    """Make a row of measured times.

    Args:
        name: of the shape.
        gaps_s: between tokens of honest streams; none means that they stood still.
        first_tokens_s: of honest streams that began.
        sign_in_s: of one honest sign-in.
        live_s: of each poll of `/health/live`.
        memory: megabytes at each moment: without the caches, and the caches'.
        errors: of the honest ones.
        seen: what the attackers saw.
    """
    if not gaps_s:
        errors = [*errors, "the honest streams had no token"]
    if not live_s:
        errors = [*errors, "/health/live was not asked"]
    return Row(
        name=name,
        gap_p99_ms=percentile(gaps_s or [0.0], 0.99) * 1e3,
        gap_max_ms=max(gaps_s, default=0.0) * 1e3,
        first_token_max_ms=max(first_tokens_s, default=0.0) * 1e3,
        sign_in_ms=sign_in_s * 1e3,
        live_median_ms=statistics.median(live_s or [0.0]) * 1e3,
        live_p99_ms=percentile(live_s or [0.0], 0.99) * 1e3,
        live_max_ms=max(live_s, default=0.0) * 1e3,
        memory_mb=max(rest for rest, _ in memory),
        caches_mb=max(caches for _, caches in memory),
        errors=list(errors),
        seen=dict(seen),
    )


@dataclass(frozen=True)
class Verdict:
    """The worst of each figure beside its limit."""

    gap_factor: float
    live_max_ms: float
    memory_factor: float
    errors: int

    @property
    def held(self) -> bool:
        """Whether every limit was kept."""
        return all(kept for _, kept in self._lines())

    def __str__(self) -> str:
        """One line."""
        return "; ".join(f"{text}: {'held' if kept else 'BROKEN'}" for text, kept in self._lines())

    def _lines(self) -> Iterator[tuple[str, bool]]:
        yield (
            f"p99 gap at most {self.gap_factor:.2f} × calm (< {GAP_FACTOR:g})",
            self.gap_factor < GAP_FACTOR,
        )
        yield (
            f"/health/live at most {self.live_max_ms:.0f} ms (< {LIVE_MS:g})",
            self.live_max_ms < LIVE_MS,
        )
        yield (
            f"memory afterwards {self.memory_factor:.3f} × before (<= {MEMORY_FACTOR:g})",
            self.memory_factor <= MEMORY_FACTOR,
        )
        yield f"{self.errors} errors of the honest ones (0)", self.errors == 0


def verdict(calm: Row, shapes: Sequence[Row], *, before_mb: float, after_mb: float) -> Verdict:
    """Compare each shape with the calm time before, and memory afterwards with before."""
    return Verdict(
        gap_factor=max(shape.gap_p99_ms for shape in shapes) / calm.gap_p99_ms,
        live_max_ms=max(r.live_max_ms for r in (calm, *shapes)),
        memory_factor=after_mb / before_mb,
        errors=sum(len(r.errors) for r in (calm, *shapes)),
    )


def line(r: Row, calm: Row) -> str:
    """A row for the terminal."""
    factors = [ms / calm.gap_p99_ms for ms in (r.gap_p99_ms, r.gap_max_ms)]
    text = (
        f"{r.name:26} gap p99 {r.gap_p99_ms:6.0f} ms {factors[0]:5.2f} ×, max {factors[1]:6.2f} ×; "
        f"first token {r.first_token_max_ms / 1e3:5.1f} s; sign-in {r.sign_in_ms / 1e3:4.1f} s; "
        f"live {r.live_median_ms:4.1f} {r.live_p99_ms:5.0f} {r.live_max_ms:6.0f} ms; "
        f"memory {r.memory_mb:5.0f} + {r.caches_mb:4.0f} MB; {_seen(r.seen)}"
    )
    return "\n".join([text, *(f"    {error}" for error in r.errors[:10])])


def ending(end_s: float | None) -> str:
    """How the server ended, in words; None: it did not."""
    if end_s is None:
        return f"the server still ran {END_S:.0f} s after SIGTERM and was killed"
    return f"the server ended {end_s:.1f} s after SIGTERM"


def markdown(result: dict[str, Any]) -> str:
    """The table of a whole run, from its JSON."""
    calm = Row(**result["calm"])
    rows = [calm, *(Row(**r) for r in result["shapes"]), Row(**result["afterwards"])]
    heads = ["", "gap p99", "max", "first token", "sign-in", "live, median", "p99", "max"]
    heads += ["memory", "caches", "errors", "what the attackers got"]
    lines = [heads, ["---"] * len(heads)]
    lines += [
        [
            r.name,
            f"{r.gap_p99_ms:.0f} ms, **{r.gap_p99_ms / calm.gap_p99_ms:.2f} ×**",
            f"{r.gap_max_ms / calm.gap_p99_ms:.1f} ×",
            f"{r.first_token_max_ms / 1e3:.1f} s",
            f"{r.sign_in_ms / 1e3:.2f} s",
            f"{r.live_median_ms:.1f} ms",
            f"{r.live_p99_ms:.0f} ms",
            f"{r.live_max_ms:.0f} ms",
            f"{r.memory_mb:.0f} MB",
            f"{r.caches_mb:.0f} MB",
            str(len(r.errors)),
            _seen(r.seen),
        ]
        for r in rows
    ]
    notes = (
        f"{result['machine']}, {result['cores']} cores, load average before "
        f"{result['load_average_before']:.1f}. {result['honest']} honest streams, "
        f"{result['seconds']:g} s a shape. Factors are to the calm p99 gap. Memory: resident, "
        f"without the caches of keys, values and prefixes; {result['before_mb']:.0f} MB before and "
        f"{result['after_mb']:.0f} MB afterwards. Beside endless bodies {ending(result['end_s'])}. "
        f"Attackers' limits per minute: {result['rate_limit']}."
    )
    table = ["| " + " | ".join(cells) + " |" for cells in lines]
    return "\n".join([*table, "", notes, "", f"**{result['verdict']}.**"]) + "\n"


def _seen(seen: Mapping[str, int]) -> str:
    most_first = sorted(seen.items(), key=lambda item: -item[1])
    return ", ".join(f"{count} {what}" for what, count in most_first)
