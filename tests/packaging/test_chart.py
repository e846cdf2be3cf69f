"""The Helm chart: what real Helm makes of it is what Kubernetes takes and what the server has."""

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from app.dialects.operations.routes import PATHS
from app.engine_gauges import EngineState
from app.manifest import folder_name
from app.metrics import Metrics
from app.settings import PREFIX, InvalidSetting, load_settings
from export.command_line import parse
from tests.packaging.kubernetes import (
    CHART,
    HELM,
    NEWEST,
    OLDEST,
    Object,
    helm,
    one,
    problems,
    rendered,
)

pytestmark = pytest.mark.skipif(not HELM.exists(), reason="there is no Helm: make kubernetes")

NAMED = {"secrets.database.name": "db", "secrets.signing.name": "signing"}
ALL = {
    **NAMED,
    "secrets.store.name": "store",
    "autoscaling.enabled": True,
    "serviceMonitor.enabled": True,
    "serviceMonitor.apiKey.name": "metrics",
    "podAnnotations": {"a": "b"},
    "podLabels": {"c": "d"},
    "imagePullSecrets": [{"name": "registry"}],
    "runtimeClassName": "nvidia",
    "nodeSelector": {"disk": "ssd"},
    "affinity": {"podAntiAffinity": {}},
}
CASES: dict[str, tuple[dict[str, Any], tuple[str, ...]]] = {
    "plain": (NAMED, ()),
    "gpu": (NAMED, ("values-gpu.yaml",)),
    "everything": (ALL, ()),
    "one": ({"replicas": 1, "dataClaim": "data"}, ()),
    **{
        volume: (NAMED | {"models.volume": volume}, ())
        for volume in ("claim", "node", "pod", "image")
    },
    "closed": (NAMED | {"networkPolicy.clients": [], "networkPolicy.monitoring": []}, ()),
}
METRIC = re.compile(r"\bllmhost_[a-z_]+\b")


@pytest.fixture(scope="module", params=CASES)
def objects(request: pytest.FixtureRequest) -> list[Object]:
    values, files = CASES[request.param]
    return rendered(values, *files)


@pytest.fixture(scope="module")
def everything() -> list[Object]:
    return rendered(ALL)


def pod_of(objects: list[Object]) -> Object:
    return one(objects, "Deployment")["spec"]["template"]["spec"]


def server_of(objects: list[Object]) -> Object:
    (server,) = pod_of(objects)["containers"]
    return server


def environment_of(objects: list[Object]) -> dict[str, str]:
    return {each["name"]: each.get("value", "secret") for each in server_of(objects)["env"]}


@pytest.mark.parametrize("files", [[], ["values-gpu.yaml"]])
def test_lint_finds_nothing(files: list[str]) -> None:
    sets = [part for name in NAMED for part in ("--set", f"{name}=x")]
    given = [part for name in files for part in ("--values", CHART / name)]
    done = helm("lint", "--strict", CHART, *given, *sets)
    assert done.returncode == 0, done.stdout
    assert "WARNING" not in done.stdout


@pytest.mark.parametrize("version", [OLDEST, NEWEST])
def test_every_object_is_one_of_kubernetes(objects: list[Object], version: str) -> None:
    found = {item["kind"]: problems(item, version) for item in objects}
    assert {"Deployment", "Service", "PodDisruptionBudget"} <= found.keys()
    unknown = {kind for kind, said in found.items() if said is None}
    assert unknown <= {"ServiceMonitor"}, "the Prometheus Operator's, which has no schema here"
    assert {kind: said for kind, said in found.items() if said} == {}


def test_a_misspelt_field_would_be_found(everything: list[Object]) -> None:
    deployment = one(everything, "Deployment")
    deployment["spec"]["template"]["spec"]["enableServiceLink"] = False
    assert "enableServiceLink" in str(problems(deployment, NEWEST))
    del deployment["spec"]["template"]["spec"]["enableServiceLink"]


def test_the_server_takes_its_environment(objects: list[Object]) -> None:
    environment = environment_of(objects)
    settings = load_settings(environment)
    ports = {port["name"]: port["containerPort"] for port in server_of(objects)["ports"]}
    assert settings.port == ports["http"]
    assert settings.operations_address == f"0.0.0.0:{ports['operations']}"
    assert settings.host == "0.0.0.0"


def test_a_big_number_is_written_in_full() -> None:
    found = rendered(NAMED | {"settings": {"max_body_bytes": 20_000_000, "stalled_after_s": 2.5}})
    settings = load_settings(environment_of(found))
    assert (settings.max_body_bytes, settings.stalled_after_s) == (20_000_000, 2.5)


def test_kubernetes_adds_no_variable_that_looks_like_a_setting(objects: list[Object]) -> None:
    with pytest.raises(InvalidSetting, match="LLMHOST_SERVICE_HOST"):
        load_settings(environment_of(objects) | {PREFIX + "SERVICE_HOST": "10.0.0.1"})
    assert pod_of(objects)["enableServiceLinks"] is False


def test_probes_ask_what_the_listener_for_operations_answers(objects: list[Object]) -> None:
    server = server_of(objects)
    for probe, path in {
        "startupProbe": "/health/live",
        "livenessProbe": "/health/live",
        "readinessProbe": "/health/ready",
    }.items():
        assert server[probe]["httpGet"] == {"path": path, "port": "operations"}
        assert path in PATHS


@pytest.mark.parametrize("drain", [0, 30, 600])
def test_the_pod_has_the_time_that_its_drain_takes(drain: int) -> None:
    found = rendered(NAMED | {"drainSeconds": drain, "preStopSeconds": 7})
    assert load_settings(environment_of(found)).drain_timeout_s == drain
    assert server_of(found)["lifecycle"] == {"preStop": {"sleep": {"seconds": 7}}}
    # docs/how-to/stopping.md: cut five seconds after the drain, and ten to end in
    assert pod_of(found)["terminationGracePeriodSeconds"] == 7 + drain + 15


def test_containers_are_nobody_and_write_to_volumes_alone(objects: list[Object]) -> None:
    pod = pod_of(objects)
    assert pod["securityContext"]["runAsNonRoot"] is True
    user = re.search(r"--uid (\d+)", (CHART.parents[2] / "Containerfile").read_text())
    assert user is not None
    assert pod["securityContext"]["runAsUser"] == int(user[1])
    volumes = {volume["name"] for volume in pod["volumes"]}
    for container in (*pod.get("initContainers", []), *pod["containers"]):
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert {mount["name"] for mount in container["volumeMounts"]} <= volumes
    settings = load_settings(environment_of(objects))
    writable = {
        mount["mountPath"]
        for mount in server_of(objects)["volumeMounts"]
        if not mount.get("readOnly")
    }
    assert writable == {str(settings.data_dir), "/tmp"}


def test_the_signing_secrets_are_a_folder_that_is_updated(everything: list[Object]) -> None:
    file = Path(load_settings(environment_of(everything)).jwt_secrets_file)
    (mount,) = (m for m in server_of(everything)["volumeMounts"] if m["name"] == "signing")
    assert mount == {"name": "signing", "mountPath": str(file.parent), "readOnly": True}
    (volume,) = (v for v in pod_of(everything)["volumes"] if v["name"] == "signing")
    assert volume["secret"]["secretName"] == "signing"


def test_every_selector_finds_the_pods(everything: list[Object]) -> None:
    labels = one(everything, "Deployment")["spec"]["template"]["metadata"]["labels"].items()
    ports = {port["name"] for port in server_of(everything)["ports"]}
    services = [item for item in everything if item["kind"] == "Service"]
    selectors = [service["spec"]["selector"] for service in services]
    selectors += [
        one(everything, kind)["spec"]["selector"]["matchLabels"]
        for kind in ("Deployment", "PodDisruptionBudget")
    ]
    policy = one(everything, "NetworkPolicy")["spec"]
    selectors.append(policy["podSelector"]["matchLabels"])
    assert all(selector and selector.items() <= labels for selector in selectors)
    assert {port["targetPort"] for s in services for port in s["spec"]["ports"]} == ports
    assert {port["port"] for rule in policy["ingress"] for port in rule["ports"]} == ports
    target = one(everything, "HorizontalPodAutoscaler")["spec"]["scaleTargetRef"]
    assert target["name"] == one(everything, "Deployment")["metadata"]["name"]
    monitor = one(everything, "ServiceMonitor")["spec"]
    wanted = monitor["selector"]["matchLabels"].items()
    (scraped,) = (s for s in services if wanted <= s["metadata"]["labels"].items())
    assert scraped["spec"]["ports"][0]["name"] == monitor["endpoints"][0]["port"]
    assert monitor["endpoints"][0]["path"] in PATHS


def test_nobody_is_let_in_where_no_peers_are_named() -> None:
    values, files = CASES["closed"]
    policy = one(rendered(values, *files), "NetworkPolicy")["spec"]
    assert "Ingress" in policy["policyTypes"]
    assert not policy["ingress"]


def exported_metrics() -> set[str]:
    metrics = Metrics()
    metrics.model("m").attach(
        lambda: EngineState(
            slots=1, running=0, waiting=0, kv_usage=0.0, steps=0, block_tokens=1, slot_blocks=1
        )
    )
    text = metrics.expose("")[0].decode()
    return {line.split("{")[0].split(" ")[0] for line in text.splitlines() if line[:1] != "#"}


def test_the_autoscaler_asks_for_what_the_adapter_makes_of_our_metrics(
    everything: list[Object],
) -> None:
    adapter = yaml.safe_load((CHART.parent / "prometheus-adapter.yaml").read_text())
    rules = adapter["rules"]["custom"]
    asked = {
        metric["pods"]["metric"]["name"]
        for metric in one(everything, "HorizontalPodAutoscaler")["spec"]["metrics"]
    }
    assert asked == {rule["name"]["as"] for rule in rules}
    queries = " ".join(rule["seriesQuery"] + rule["metricsQuery"] for rule in rules)
    named = set(METRIC.findall(queries))
    assert {"llmhost_num_requests_waiting", "llmhost_slots"} <= named
    assert named <= exported_metrics()


def test_the_endpoint_picker_asks_for_our_metrics() -> None:
    config = (CHART.parent / "endpoint-picker.yaml").read_text()
    named = set(METRIC.findall(config))
    assert len(named) == 4
    assert named <= exported_metrics()
    parsed = yaml.safe_load(config)
    plugins = {plugin["type"] for plugin in parsed["plugins"]}
    (profile,) = parsed["schedulingProfiles"]
    assert {plugin["pluginRef"] for plugin in profile["plugins"]} <= plugins


def test_the_pool_of_the_manual_takes_the_pods_of_the_chart(everything: list[Object]) -> None:
    page = (CHART.parents[2] / "docs" / "how-to" / "kubernetes.md").read_text()
    pool, _ = map(yaml.safe_load, re.findall(r"```yaml\n(.*?)```", page, re.DOTALL))
    labels = one(everything, "Deployment")["spec"]["template"]["metadata"]["labels"].items()
    assert pool["spec"]["selector"]["matchLabels"].items() <= labels
    ports = {port["name"]: port["containerPort"] for port in server_of(everything)["ports"]}
    assert pool["spec"]["targetPorts"] == [{"number": ports["http"]}]


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({}, "secrets.database.name is empty"),
        ({"secrets.database.name": "db"}, "secrets.signing.name is empty"),
        ({"replicas": 1, "autoscaling.enabled": True}, "secrets.database.name is empty"),
        (NAMED | {"dataClaim": "data"}, "dataClaim is for one replica"),
        (NAMED | {"replica": 3}, "replica"),
        (NAMED | {"models.volume": "cloud"}, "/models/volume"),
        (NAMED | {"settings": {"database_url": "sqlite://"}}, "database_url"),
    ],
)
def test_values_that_cannot_work_are_refused_by_name(values: dict[str, Any], said: str) -> None:
    with pytest.raises(AssertionError, match=re.escape(said)):
        rendered(values)


def model_container(*files: str) -> Object:
    (container,) = pod_of(rendered(NAMED, *files))["initContainers"]
    return container


@pytest.mark.parametrize("files", [(), ("values-gpu.yaml",)])
def test_the_export_takes_its_arguments_and_makes_what_the_server_loads(
    files: tuple[str, ...],
) -> None:
    found = rendered(NAMED, *files)
    *_, folder = (part for part in model_container(*files)["command"][:6])
    assert folder == folder_name(load_settings(environment_of(found)).model)
    asked = parse(model_container(*files)["command"][6:])
    assert asked.source is None or folder_name(asked.source) == folder


def test_the_first_pod_exports_and_the_next_one_finds_the_model(tmp_path: Path) -> None:
    models = tmp_path / "models"
    models.mkdir()
    command = [part.replace("/srv/models", str(models)) for part in model_container()["command"]]
    program = tmp_path / "llmhost"
    program.write_text(
        '#!/bin/sh\necho exporting "$@"\nmkdir "$3/$NAME" && touch "$3/$NAME/manifest.json"\n'
    )
    program.chmod(0o755)

    def start(name: str) -> subprocess.CompletedProcess[str]:
        environment = {"PATH": f"{tmp_path}:/usr/bin:/bin", "NAME": name}
        return subprocess.run(
            command, env=environment, capture_output=True, text=True, check=False, timeout=30
        )

    wrong = start("another--name")
    assert (wrong.returncode, "see model.id" in wrong.stderr) == (1, True)
    first, second = (start("HuggingFaceTB--SmolLM2-135M-Instruct") for _ in range(2))
    assert first.stdout == f"exporting pull --models-dir {models} --arithmetic any\n"
    assert second.stdout == "HuggingFaceTB--SmolLM2-135M-Instruct is there\n"
    assert (first.returncode, second.returncode) == (0, 0)
