"""Metrics and health of a real process, against what clients asked it and were answered."""

import asyncio
import threading
import time
from pathlib import Path

import httpx
import pytest

from tests.e2e.scripted_app import FIRST, SECOND, write_models
from tests.e2e.server import PATIENCE_S, Server, running_server, wait_for
from tests.e2e.stalling_app import STUCK
from tests.test_metrics import parsed

SLOTS, MAX_WAITING, ASKED = 2, 2, 12


def scrape(server: Server) -> dict[tuple[str, str], float]:
    with server.client() as client:
        return parsed(client.get("/metrics").raise_for_status().text)


def wait_for_ready(server: Server, status: int, patience_s: float = PATIENCE_S) -> dict:
    give_up = time.monotonic() + patience_s
    with server.client() as client:
        while (answer := client.get("/health/ready")).status_code != status:
            assert time.monotonic() < give_up, answer.text
            time.sleep(0.02)
        return answer.json()


async def ask(client: httpx.AsyncClient, number: int) -> httpx.Response:
    body = {"prompt": "word " * (number + 1), "max_length": 5 + number, "temperature": 0}
    return await client.post("/generate", json=body)


async def ask_at_once(client: httpx.AsyncClient, stuck: Path) -> list[httpx.Response]:
    """Ask so often that some are refused: nobody is answered before all have come."""
    stuck.touch()  # noqa: ASYNC240 # it takes no time
    asking = [asyncio.create_task(ask(client, number)) for number in range(ASKED)]
    try:
        async with asyncio.timeout(PATIENCE_S):
            while sum(one.done() for one in asking) < ASKED - SLOTS - MAX_WAITING:
                await asyncio.sleep(0.01)
    finally:
        stuck.unlink()  # noqa: ASYNC240
    return await asyncio.gather(*asking)


@pytest.mark.parametrize("interface", [None, "asgi"])
async def test_the_counters_say_what_the_clients_saw(tmp_path: Path, interface: str | None):
    write_models(tmp_path / "models")
    settings = {"models_dir": tmp_path / "models", "model": FIRST, "slots": SLOTS}
    settings |= {"max_waiting": MAX_WAITING}
    stuck, target = tmp_path / "models" / STUCK, "tests.e2e.stalling_app:app"
    with running_server(tmp_path, interface=interface, target=target, **settings) as server:
        async with server.async_client() as client:
            started_s = time.monotonic()
            answers = await ask_at_once(client, stuck)
            took_s = time.monotonic() - started_s
            too_long = await client.post("/generate", json={"prompt": "word " * 500})
            answered = [answer.json() for answer in answers if answer.status_code == 200]
            refused = ASKED - len(answered)
            assert len(answered) == SLOTS + MAX_WAITING
            assert refused, "a full queue must be seen or this proves less"
            assert too_long.status_code == 413
        found = scrape(server)

        usages = [answer["usage"] for answer in answered]
        tokens = [usage["completion_tokens"] for usage in usages]
        assert found["generation_tokens_total", ""] == sum(tokens)
        assert found["prompt_tokens_total", ""] == sum(usage["prompt_tokens"] for usage in usages)
        assert found["inter_token_latency_seconds_count", ""] == sum(tokens) - len(tokens)
        for name in ("time_to_first_token", "request_queue_time", "e2e_request_latency"):
            assert found[f"{name}_seconds_count", ""] == len(answered), name
        for reason in ("stop", "length"):
            seen = sum(answer["finish_reason"] == reason for answer in answered)
            assert found["request_success_total", f"finished_reason={reason}"] == seen, reason
        assert found["request_errors_total", "code=overloaded"] == refused
        assert found["request_errors_total", "code=context_overflow"] == 1
        first_s = found["time_to_first_token_seconds_sum", ""]
        between_s = found["inter_token_latency_seconds_sum", ""]
        whole_s = found["e2e_request_latency_seconds_sum", ""]
        assert first_s + between_s == pytest.approx(whole_s, rel=0.01)
        assert 0 < whole_s < took_s * len(answered)
        assert found["engine_steps_total", ""] >= max(tokens)
        gauges = ("slots", "num_requests_running", "num_requests_waiting", "kv_cache_usage_perc")
        assert [found[gauge, ""] for gauge in gauges] == [SLOTS, 0, 0, 0]
        assert found["process_resident_memory_bytes", ""] > 10_000_000

        with server.client() as client:
            client.post("/models/load", json={"model_id": SECOND}).raise_for_status()
            text = client.get("/metrics").text
        assert f'llmhost_slots{{model_name="{SECOND}"}}' in text
        assert f'llmhost_slots{{model_name="{FIRST}"}}' not in text, "it made room"
        kept = f'llmhost_generation_tokens_total{{model_name="{FIRST}"}} {float(sum(tokens))}'
        assert kept in text


def test_a_client_that_goes_counts_as_an_abort(server: Server):
    body = {"prompt": "Tell a long story.", "stream": True, "max_length": 2000}
    key = ("request_success_total", "finished_reason=abort")
    before = scrape(server)[key]
    with server.client() as client, client.stream("POST", "/generate", json=body) as answer:
        next(answer.iter_lines())
    wait_for(lambda: scrape(server)[key] == before + 1, "it was not counted")


def test_a_stuck_decoder_turns_ready_off_and_leaves_the_process_alive(tmp_path: Path):
    write_models(tmp_path / "models")
    stuck = tmp_path / "models" / STUCK
    settings = {"models_dir": tmp_path / "models", "model": FIRST, "stalled_after_s": 0.5}
    target = "tests.e2e.stalling_app:app"
    with running_server(tmp_path, target=target, **settings) as server:
        assert wait_for_ready(server, 200) == {"status": "ready"}
        answers: list[httpx.Response] = []

        def ask_once() -> None:
            with server.client() as client:
                body = {"prompt": "word", "max_length": 3}
                answers.append(client.post("/generate", json=body))

        stuck.touch()
        asking = threading.Thread(target=ask_once)
        try:
            asking.start()
            expected = {"status": "not_ready", "reason": "stalled"}
            assert wait_for_ready(server, 503) == expected
            with server.client(timeout_s=PATIENCE_S) as client:
                assert client.get("/health/live").json() == {"status": "alive"}
                assert client.get("/health").json()["status"] == "healthy", "as documented"
            assert scrape(server)["num_requests_waiting", ""] == 1
        finally:
            stuck.unlink()
        asking.join(PATIENCE_S)
        assert answers[0].status_code == 200
        assert wait_for_ready(server, 200) == {"status": "ready"}
