"""A model that this processor would compute wrongly is refused, and wrongness is seen."""

import os
import platform
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import msgspec
import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from app.catalog.loaded import open_model
from app.errors import ModelBroken
from app.manifest import read_manifest, write_manifest
from app.runtime import arithmetic
from app.settings import Settings
from tests.fakes import BYTES
from tests.tiny_model import write_tiny_model

QEMU = shutil.which("qemu-x86_64")
SAYS = "from app.runtime.arithmetic import multiplies_exactly; print(multiplies_exactly())"


def graph_bytes() -> bytes:
    """What `arithmetic.GRAPH` holds."""
    weights = np.full((arithmetic.WIDTH, 32), 127, np.int8)
    constants = {
        "weights": weights,
        "step": np.float32(1),
        "steps": np.ones(32, np.float32),
        "zero": np.uint8(0),
    }
    node = helper.make_node(
        "MatMulIntegerToFloat",
        ["codes", "weights", "step", "steps", "zero"],
        ["product"],
        domain="com.microsoft",
    )
    codes = helper.make_tensor_value_info("codes", TensorProto.UINT8, ["rows", arithmetic.WIDTH])
    product = helper.make_tensor_value_info("product", TensorProto.FLOAT, ["rows", 32])
    tensors = [numpy_helper.from_array(np.asarray(v), name) for name, v in constants.items()]
    model = helper.make_model(
        helper.make_graph([node], "saturation", [codes], [product], tensors),
        opset_imports=[helper.make_opsetid("", 20), helper.make_opsetid("com.microsoft", 1)],
        ir_version=9,
    )
    return bytes(model.SerializeToString())


def test_the_graph_in_the_package_is_the_one_described_here() -> None:
    assert graph_bytes() == arithmetic.GRAPH.read_bytes()


def test_a_model_that_would_be_computed_wrongly_is_refused_with_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write_tiny_model(tmp_path, tokenizer=BYTES)
    manifest = read_manifest(folder)
    needs = msgspec.structs.replace(manifest.quantisation, arithmetic="u8s8")
    write_manifest(folder, msgspec.structs.replace(manifest, quantisation=needs))
    monkeypatch.setattr(arithmetic, "multiplies_exactly", lambda: False)
    with pytest.raises(ModelBroken, match=r"neither VNNI nor AMX.*--arithmetic any"):
        open_model(folder, Settings(models_dir=tmp_path))
    monkeypatch.setattr(arithmetic, "multiplies_exactly", lambda: True)
    open_model(folder, Settings(models_dir=tmp_path)).decoder.close()


@pytest.mark.skipif(
    QEMU is None or platform.machine() != "x86_64", reason="there is no qemu-x86_64 (qemu-user)"
)
@pytest.mark.parametrize(("cpu", "exact"), [("Haswell", "False")])
def test_a_processor_with_avx2_alone_is_seen_to_saturate(cpu: str, exact: str) -> None:
    assert QEMU is not None
    path = os.pathsep.join([str(Path.cwd()), sysconfig.get_paths()["purelib"]])
    said = subprocess.run(  # our own interpreter, emulated
        [QEMU, "-cpu", cpu, str(Path(sys.executable).resolve()), "-c", SAYS],
        env={"PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=True,
        timeout=300,
    )
    assert said.stdout.strip() == exact
