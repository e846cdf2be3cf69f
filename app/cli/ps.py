"""`llmhost ps`: what a running server has in memory, and how busy it is."""

from typing import Any, Final

import click
from prometheus_client.parser import text_string_to_metric_families

from app.cli.client import checked, default_url, get_json, make_client, with_server
from app.cli.options import Chosen, with_settings
from app.cli.outcome import CommandFailed
from app.cli.output import print_rows, with_json

GAUGES: Final = {
    "llmhost_slots": "slots",
    "llmhost_num_requests_running": "running",
    "llmhost_num_requests_waiting": "waiting",
    "llmhost_kv_cache_usage_perc": "kv_usage",
}


@click.command()
@with_settings()
@with_server
@with_json
def ps(chosen: Chosen, url: str | None, key: str | None, as_json: bool) -> None:
    """Show what a running server has in memory, and how busy it is."""
    with make_client(url or default_url(chosen.settings), key) as client:
        models = get_json(client, "/models/available")["models"]
        try:
            gauges = _gauges(checked(client, "GET", "/metrics").text)
        except CommandFailed:  # an administrator's, where the server is closed
            gauges = {}
    rows: list[dict[str, Any]] = [
        {
            "model": model["id"],
            "state": "loaded" if model["is_loaded"] else "loading",
            **dict.fromkeys(GAUGES.values()),
            **gauges.get(model["id"], {}),
        }
        for model in models
        if model["is_loaded"] or model["loading_progress"] is not None
    ]

    def number(name: str) -> Any:
        return lambda row: "–" if row[name] is None else f"{row[name]:g}"

    print_rows(
        rows,
        {
            "model": lambda row: row["model"],
            "state": lambda row: row["state"],
            "slots": number("slots"),
            "running": number("running"),
            "waiting": number("waiting"),
            "KV cache": lambda row: "–" if row["kv_usage"] is None else f"{row['kv_usage']:.0%}",
        },
        as_json=as_json,
    )


def _gauges(text: str) -> dict[str, dict[str, float]]:
    """Figures of each model in memory."""
    found: dict[str, dict[str, float]] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            if sample.name in GAUGES:
                of_model = found.setdefault(sample.labels["model_name"], {})
                of_model[GAUGES[sample.name]] = sample.value
    return found
