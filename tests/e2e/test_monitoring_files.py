"""The files of deploy/ for monitoring, against what a server says of itself."""

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.e2e.server import ROOT, Server

DEPLOY = ROOT / "deploy"
DASHBOARD = DEPLOY / "grafana" / "dashboards" / "llmhost.json"
RULES = DEPLOY / "prometheus" / "llmhost.rules.yml"
NAME = re.compile(r"\b(?:llmhost|process)_[a-z0-9_]+")
CODES = re.compile(r'code=~?"([a-z_|]+)"')


def queries(value: Any) -> Iterator[str]:
    """Every query of a dashboard, its variables' too."""
    if isinstance(value, dict):
        for key, inner in value.items():
            if key in ("expr", "query", "definition") and isinstance(inner, str):
                yield inner
            yield from queries(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from queries(inner)


@pytest.fixture(scope="module")
def metrics(server: Server) -> str:
    body = {"prompt": "Hello", "max_length": 2, "temperature": 0}
    with server.client() as client:
        assert client.post("/generate", json=body).status_code == 200
        return client.get("/metrics").text


def series(metrics: str) -> set[str]:
    return {re.split(r"[{ ]", line)[0] for line in metrics.splitlines() if line[0] != "#"}


def test_every_name_of_the_dashboard_is_a_series_of_the_server(metrics: str) -> None:
    asked = {
        name for query in queries(json.loads(DASHBOARD.read_text())) for name in NAME.findall(query)
    }
    assert len(asked) > 20, "else this looks in the wrong place"
    assert asked <= series(metrics)


def test_the_dashboard_shows_everything_that_is_measured_of_models(metrics: str) -> None:
    shown = DASHBOARD.read_text()
    stems = {
        re.sub(r"_(bucket|sum|count|created|total)$", "", name)
        for name in series(metrics)
        if name.startswith("llmhost_")
    }
    assert len(stems) > 15
    assert not {stem for stem in stems if stem not in shown}


def test_every_name_and_code_of_the_rules_is_one_of_the_server(metrics: str) -> None:
    rules = RULES.read_text()
    assert set(NAME.findall(rules)) <= series(metrics)
    codes = {code for found in CODES.findall(rules) for code in found.split("|")}
    assert "engine_failure" in codes
    assert codes <= set(re.findall(r'llmhost_request_errors_total{code="(\w+)"}', metrics))


def promtool(
    *arguments: object,
    text: str | None = None,
    folder: Path = RULES.parent,
    complaint: str | None = None,
) -> str:
    """Ask promtool; it has to find nothing, or the one complaint and no other."""
    program = shutil.which("promtool")
    if program is None:
        pytest.skip("there is no promtool (Debian's package prometheus)")
    done = subprocess.run(
        [program, *map(str, arguments)],
        cwd=folder,
        input=text,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    said = done.stdout + done.stderr
    if complaint is None:
        assert done.returncode == 0, said
    else:
        assert said.strip() == complaint
    return said


def test_promtool_accepts_the_configuration_and_the_rules_do_as_their_tests_say() -> None:
    assert "SUCCESS" in promtool("check", "config", "prometheus.yml")
    assert "SUCCESS" in promtool("test", "rules", "llmhost.rules.test.yml")


def test_promtool_accepts_every_query_of_the_dashboard(tmp_path: Path) -> None:
    panels = [panel.get("targets", []) for panel in json.loads(DASHBOARD.read_text())["panels"]]
    asked = [target["expr"] for targets in panels for target in targets]
    assert len(asked) > 20
    # what Grafana fills in before it asks
    filled = [one.replace("$__rate_interval", "1m").replace("$", "") for one in asked]
    rules = [f"  - record: 'x:{n}'\n    expr: {json.dumps(one)}\n" for n, one in enumerate(filled)]
    (tmp_path / "queries.yml").write_text("groups:\n- name: dashboard\n  rules:\n" + "".join(rules))
    promtool("check", "rules", "--lint=none", "queries.yml", folder=tmp_path)


def test_promtool_finds_no_fault_with_the_metrics_themselves(server: Server) -> None:
    text = httpx.get(f"{server.url}/metrics").text
    # vLLM's name for a histogram, which its dashboards ask for
    complaint = 'llmhost_iteration_tokens_total non-counter metrics should not have "_total" suffix'
    promtool("check", "metrics", text=text, complaint=complaint)
