"""LocalLab's models and machine, and what operators ask."""

from tests.corpus.request import ask, load, post
from tests.corpus.scripted import BROKEN, FORKS
from tests.e2e.scripted_app import FIRST, SECOND

REQUESTS = [
    ask("health", "/health"),
    ask("live", "/health/live"),
    ask("ready", "/health/ready"),
    ask("current model", "/models/current"),
    ask("models at first", "/models/available"),
    ask("system info", "/system/info", show="keys"),
    load(SECOND),
    load(SECOND, " though it is there"),
    ask("current model after a load", "/models/current"),
    ask("models after a load", "/models/available"),
    post("unload by name", "/models/unload", {"model_id": SECOND}),
    post("unload by name what is not loaded", "/models/unload", {"model_id": SECOND}),
    post("unload an unknown model", "/models/unload", {"model_id": "nobody/nothing"}),
    post("unload with null", "/models/unload", {"model_id": None}),
    post("unload without a body when none is loaded", "/models/unload"),
    ask("health without a model", "/health"),
    ask("ready without a model", "/health/ready"),
    ask("current model without one", "/models/current"),
    post("generate without a model", "/generate", {"prompt": "Hi"}),
    post("chat without a model", "/chat", {"messages": [{"role": "user", "content": "Hi"}]}),
    load(FIRST),
    load(FORKS),
    post("unload with a type and no body", "/models/unload", b""),
    post("load an unknown model", "/models/load", {"model_id": "nobody/nothing"}),
    post("load a path", "/models/load", {"model_id": "../../etc"}),
    post("load a broken model", "/models/load", {"model_id": BROKEN}),
    post("load nothing", "/models/load", {}),
    post("load an empty name", "/models/load", {"model_id": ""}),
    post("load a number", "/models/load", {"model_id": 3}),
    post("load with an unknown field", "/models/load", {"model_id": FIRST, "quantize": True}),
    post("load without a body", "/models/load"),
    post(
        "load from another site", "/models/load", {"model_id": FIRST}, sec_fetch_site="cross-site"
    ),
    post("unload from another site", "/models/unload", sec_fetch_site="cross-site"),
    post(
        "load from the same site", "/models/load", {"model_id": FIRST}, sec_fetch_site="same-site"
    ),
    ask("metrics", "/metrics", show="series"),
    ask("metrics as OpenMetrics", "/metrics", accept="application/openmetrics-text", show="series"),
    ask("OpenAPI document", "/schema/openapi.json", show="paths"),
]
