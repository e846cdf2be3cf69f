"""The served OpenAPI document is true: schemathesis's cases against a real server.

All its checks; schemathesis.toml says what a schema can not know.

The models are tiny and their context 128 tokens, so that generations are short whatever is asked.
SCHEMATHESIS_EXAMPLES=200 tries more by hand.
"""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urljoin

import pytest

from tests.e2e.scripted_app import FIRST, write_models
from tests.e2e.server import ROOT, Server, running_server

EXAMPLES = os.environ.get("SCHEMATHESIS_EXAMPLES", "15")
"""Random cases of an operation, besides those of its limits."""


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("tiny")
    write_models(folder / "models")
    with running_server(
        folder,
        models_dir=folder / "models",
        model=FIRST,
        context_length=128,
        default_max_tokens=4,
        argon2_memory_kib=8,
        argon2_time_cost=1,
        login_attempts_per_account=0,
        login_attempts_per_address=0,
        login_attempts_from_new_addresses=0,
        registrations_per_address=0,
    ) as running:
        yield running


def test_every_answer_is_as_documented(tiny: Server):
    # its command line: its pytest plugin does not run under pytest 9.2
    command = [
        str(Path(sys.executable).with_name("schemathesis")),
        f"--config-file={Path(__file__).with_name('schemathesis.toml')}",
        "run",
        f"{tiny.url}/schema/openapi.json",
        "--mode=all",
        "--continue-on-failure",
        "--generation-deterministic",
        f"--max-examples={EXAMPLES}",
        "--request-timeout=60",
    ]
    environment = {**os.environ, "SCHEMATHESIS_HOOKS": "tests.e2e.openapi_auth", "NO_COLOR": "1"}
    done = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    with tiny.client() as client:
        paths = client.get("/schema/openapi.json").json()["paths"].values()
    count = sum(len(operations) for operations in paths)
    assert f"{count}/{count}" in done.stdout, "every operation is tried"


def test_the_human_page_needs_no_other_host(tiny: Server):
    with tiny.client() as client:
        page = client.get("/schema")
        assert page.status_code == 200
        assert page.headers["content-type"].startswith("text/html")
        head = page.text[: page.text.index("</head>")]
        files = re.findall(r"(?:src|href)=[\"']([^\"']+)[\"']", head)
        assert len(files) == 4, "two scripts, a style sheet, an icon"
        for file in files:
            assert file.startswith("./schema/"), file
            assert client.get(urljoin("/schema", file)).status_code == 200
        assert "SwaggerUIBundle" in client.get("/schema/files/swagger-ui-bundle.js").text
