"""LocalLab's management through its routes, over a real catalog of tiny models."""

import json
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from app.catalog.catalog import Catalog
from app.dialects.locallab import management
from app.dialects.locallab import routes as locallab
from app.generation.service import GenerationService
from app.settings import Settings
from app.system import read_memory
from tests.asgi_client import Answer, ask
from tests.fakes import BYTES
from tests.hosts import app_over, host_over
from tests.tiny_model import CONTEXT, write_tiny_model

A, B = "tiny/a", "tiny/b"
JSON = {"content-type": "application/json"}


class Server:
    def __init__(self, models_dir: Path) -> None:
        settings = Settings(models_dir=models_dir, slots=2, intra_op_threads=1, drain_timeout_s=0)
        self.models_dir = models_dir
        self.catalog = Catalog(settings)
        host = host_over(GenerationService(self.catalog), self.catalog)
        self.app = app_over(host, [locallab])

    async def get(self, path: str) -> Answer:
        # original clients name a type although there is no body
        return await ask(self.app, "GET", path, headers=JSON)

    async def post(self, path: str, body: object = None, **options: object) -> Answer:
        return await ask(self.app, "POST", path, body, **options)


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[Server]:
    for seed, model_id in enumerate((A, B)):
        write_tiny_model(tmp_path, model_id, vocab_size=258, seed=seed, tokenizer=BYTES)
    server = Server(tmp_path)
    yield server
    await server.catalog.close()


async def test_a_loaded_model_is_the_current_one(server):
    for _ in range(2):  # loading it again succeeds
        answer = await server.post("/models/load", {"model_id": A})
        assert (answer.status, answer.json) == (
            200,
            {"model_id": A, "message": "Model tiny/a is loaded", "status": "success"},
        )
    answer = await server.get("/models/current")
    assert (answer.status, answer.headers["content-type"]) == (200, "application/json")
    model = server.catalog.current
    body = answer.json
    assert 0 < body.pop("memory_used") < read_memory().total
    assert body == {
        "id": A,
        "model_id": A,
        "name": "a",
        "description": "",
        "is_loaded": True,
        "loading_progress": 1.0,
        "context_length": CONTEXT,
        "max_length": CONTEXT,
        "quantization": "none",
        "execution_provider": "cpu",
        "kv_cache_size": model.cache_bytes,
        "size_bytes": model.facts.size_bytes,
        "slots": 2,
        "loaded_models": [A],
    }


async def test_none_loaded_is_404_at_current(server):
    answer = await server.get("/models/current")
    assert (answer.status, answer.json) == (404, {"detail": "no model is loaded"})


@pytest.mark.parametrize(
    ("body", "options"),
    [
        (None, {}),
        (None, {"headers": JSON}),
        ({}, {}),
        ({"model_id": None}, {}),
        ({"model_id": A}, {}),
    ],
)
async def test_unload_answers_in_the_words_that_clients_compare(server, body, options):
    await server.catalog.load(A)
    answer = await server.post("/models/unload", body, **options)
    assert answer.status == 200
    assert answer.json == {
        "status": "Model unloaded successfully",
        "message": "Model tiny/a unloaded",
        "model_id": A,
    }
    again = await server.post("/models/unload", body, **options)
    assert (again.status, again.json["status"]) == (200, "No model was loaded")
    assert again.json["model_id"] is None


async def test_available_lists_the_disk_and_says_what_is_loaded(server):
    await server.catalog.load(B)
    answer = await server.get("/models/available")
    assert answer.status == 200
    assert answer.json["current_model"] == B
    a, b = answer.json["models"]
    assert (a["id"], a["name"], a["can_load"], a["is_loaded"]) == (A, "a", True, False)
    assert (b["id"], b["is_loaded"], b["loading_progress"]) == (B, True, 1.0)
    assert a["loading_progress"] is None
    assert a["size_bytes"] > 0
    await server.catalog.unload()
    assert (await server.get("/models/available")).json["current_model"] is None


@pytest.mark.parametrize("path", ["/models/load", "/models/unload"])
@pytest.mark.parametrize("model_id", ["no/such", "../x", "tiny--a"])
async def test_an_unknown_model_is_404(server, path, model_id):
    answer = await server.post(path, {"model_id": model_id})
    assert (answer.status, answer.json) == (
        404,
        {"detail": f"model {model_id!r} is not on this server"},
    )


@pytest.mark.parametrize(
    ("path", "raw", "detail"),
    [
        ("/models/load", b"", "body is '', expected a JSON object"),
        ("/models/load", b"{}", "model_id is missing, expected string, length >= 1"),
        ("/models/load", b'{"model_id": 5}', "model_id is 5, expected string, length >= 1"),
        ("/models/unload", b"[]", "body is '[]', expected a JSON object"),
        ("/models/unload", b'{"model_id": ""}', "model_id is '', expected string, length >= 1"),
    ],
)
async def test_a_wrong_body_is_400_with_the_field(server, path, raw, detail):
    answer = await server.post(path, raw=raw, headers=JSON)
    assert answer.status == 400
    assert answer.json["detail"].startswith(detail)


async def test_a_broken_model_is_500_and_the_loaded_one_stays(server):
    await server.catalog.load(A)
    (server.models_dir / "tiny--b/model.onnx").unlink()
    answer = await server.post("/models/load", {"model_id": B})
    assert answer.status == 500
    assert "found missing" in answer.json["detail"]
    assert (await server.get("/models/current")).json["id"] == A
    assert [model["id"] for model in (await server.get("/models/available")).json["models"]] == [A]


async def test_system_info_has_both_shapes(server):
    await server.catalog.load(A)
    before = (await server.get("/system/info")).json
    body = {"prompts": ["a", "b"], "max_length": 2}
    assert (await server.post("/generate/batch", body)).status == 200
    info = (await server.get("/system/info")).json
    assert (before["request_count"], info["request_count"]) == (0, 1)
    assert info["active_model"] == A
    assert 0 <= info["cpu_usage"] <= 100
    assert info["cpu"]["usage"] == info["cpu_usage"]
    assert info["cpu"]["cores"] >= 1
    assert 0 < info["memory_usage"] <= 100
    assert info["memory"]["percent"] == info["memory_usage"]
    assert info["memory"]["used"] < info["memory"]["total"]
    assert 0 <= before["uptime"] <= info["uptime"]
    assert info["gpu"] == info["gpu_info"]


async def test_system_info_without_a_gpu_says_null(server, monkeypatch):
    monkeypatch.setattr(management, "read_gpus", lambda: None)
    info = (await server.get("/system/info")).json
    assert (info["gpu_info"], info["gpu"], info["active_model"]) == (None, None, None)


def test_the_openapi_document_describes_every_endpoint(tmp_path):
    document = json.loads(json.dumps(Server(tmp_path).app.openapi_schema.to_schema()))
    statuses = {
        ("/models/load", "post"): {"200", "400", "401", "403", "404", "413", "500", "503"},
        ("/models/unload", "post"): {"200", "400", "401", "403", "404", "413", "500"},
        ("/models/current", "get"): {"200", "401", "404"},
        ("/models/available", "get"): {"200", "401"},
        ("/system/info", "get"): {"200", "401"},
    }
    for (path, method), expected in statuses.items():
        operation = document["paths"][path][method]
        assert set(operation["responses"]) == expected, path
        assert operation["summary"]
    assert document["paths"]["/models/unload"]["post"]["requestBody"]["required"] is False


def gpu_driver(**broken: Exception) -> SimpleNamespace:
    """What `pynvml` looks like on a machine with one GPU."""

    class NVMLError(Exception):
        pass

    class NotSupported(NVMLError):
        pass

    def answer(name: str, value: object):
        def call(*_: object) -> object:
            if name in broken:
                raise {"error": NVMLError, "unsupported": NotSupported}[broken[name]]
            return value

        return call

    return SimpleNamespace(
        NVMLError=NVMLError,
        NVMLError_NotSupported=NotSupported,
        nvmlInit=answer("init", None),
        nvmlShutdown=answer("shutdown", None),
        nvmlDeviceGetCount=answer("count", 1),
        nvmlDeviceGetHandleByIndex=answer("handle", object()),
        nvmlDeviceGetName=answer("name", "NVIDIA T4"),
        nvmlDeviceGetUtilizationRates=answer("utilization", SimpleNamespace(gpu=37)),
        nvmlDeviceGetMemoryInfo=answer("memory", SimpleNamespace(total=16, used=5)),
    )


@pytest.mark.parametrize(
    ("broken", "expected"),
    [
        ({}, {"utilization": 37}),
        ({"utilization": "unsupported"}, {"utilization": None}),
        ({"init": "error"}, None),
        ({"memory": "error"}, None),
    ],
)
async def test_gpus_are_told_as_far_as_the_driver_tells(server, monkeypatch, broken, expected):
    monkeypatch.setattr("app.system.pynvml", gpu_driver(**broken))
    info = (await server.get("/system/info")).json
    if expected is None:
        assert info["gpu_info"] is None
    else:
        [gpu] = info["gpu_info"]
        whole = {"index": 0, "name": "NVIDIA T4", "memory_total": 16, "memory_used": 5}
        assert gpu == whole | expected
