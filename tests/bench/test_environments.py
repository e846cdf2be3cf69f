"""Making the peers: what is done is done once, what fails is said and tried again."""

import json
import sys

import pytest

from bench.peers import environments
from bench.peers.recipes import ENVIRONMENTS, PEERS, Place


@pytest.fixture
def place(tmp_path):
    return Place(tmp_path)


def python(code):
    return ([sys.executable, "-c", code], {})


def test_what_succeeded_is_not_done_again_until_its_recipe_changes(place, tmp_path):
    trace = tmp_path / "trace"
    command = python(f"open({str(trace)!r}, 'a').write('x')")
    failures = {}
    for _ in range(2):
        environments.attempt(place, "it", failures, [command])
    assert trace.read_text() == "x"
    environments.attempt(place, "it", failures, [command, python("pass")])
    assert trace.read_text() == "xx"
    assert failures == {}


def test_a_failure_keeps_its_last_line_and_is_tried_again(place):
    failures = {}
    environments.attempt(place, "it", failures, [python("import sys; sys.exit('no wheel')")])
    assert "no wheel" in failures["it"]
    assert json.loads(place.failures.read_text()) == failures
    environments.attempt(place, "it", failures, [python("pass")])
    assert failures == {}


def test_a_peer_of_a_failed_environment_is_missing_with_that_reason(place):
    place.failures.write_text(json.dumps({"openvino": "no wheel for this processor"}))
    missing = place.missing()
    assert missing["openvino_int4"] == missing["openvino_int8"] == "no wheel for this processor"
    assert missing["llama_cpp"] == "not installed"
    assert missing.keys() == PEERS.keys()


def test_every_peer_has_an_environment_with_pinned_versions_and_a_program():
    for name, peer in PEERS.items():
        assert peer.environment in ENVIRONMENTS, name
        assert (environments.ROOT / "bench/peers/programs" / f"{peer.program}.py").is_file(), name
    for name, environment in ENVIRONMENTS.items():
        assert all("==" in requirement for requirement in environment.requirements), name
