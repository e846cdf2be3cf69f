"""`llmhost doctor`: look at the machine, the settings and the models; say what would not work."""

import platform
import shutil
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Final

import click
import psutil

from app.cli.checks import (
    Check,
    check_disk,
    check_free_memory,
    check_model,
    check_models,
    check_port,
)
from app.cli.client import answers, default_url
from app.cli.options import Chosen, with_settings
from app.cli.outcome import Exit
from app.cli.output import gigabytes, print_json, say, with_json
from app.cli.settings import rows_of
from app.setting_sources import config_path
from app.settings import Settings

FEATURES: Final = ("avx2", "avx512f", "avx512_vnni", "avx_vnni", "amx_int8", "asimddp", "i8mm")
"""What MLAS has kernels for, as Linux names it."""
PACKAGES: Final = ("granian", "litestar", "tokenizers", "llguidance", "torch", "optimum")
_SIGNS: Final = {"ok": "✓", "warning": "!", "problem": "✗"}


@click.command()
@with_settings("host", "port", "model", "models_dir", "data_dir")
@with_json
@click.pass_context
def doctor(context: click.Context, chosen: Chosen, as_json: bool) -> None:
    """Check this machine, the settings and the models.

    Ends with status 1 where something would keep `llmhost serve` from working.
    """
    found = list(examine(chosen))
    if as_json:
        print_json([check._asdict() for check in found])
    else:
        for check in found:
            say(f"{_SIGNS[check.state]} {check.name:<10} {check.text}")
    if any(check.state == "problem" for check in found):
        context.exit(Exit.FAILED)


def examine(chosen: Chosen) -> Iterator[Check]:
    """Look at everything, from the machine up to the settings."""
    settings = chosen.settings
    yield _versions()
    yield _processor()
    yield from _runtime(settings)
    yield _memory()
    check, manifest = check_model(settings) if settings.model else (None, None)
    if manifest is not None:
        yield check_free_memory(manifest, settings)
    elif check is not None:
        yield check
    yield from check_models(settings.models_dir)
    yield check_disk(settings.data_dir)
    yield _port(settings)
    yield _files()
    yield from _settings(chosen)


def _versions() -> Check:
    said = []
    for package in PACKAGES:
        try:
            said.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            said.append(f"no {package}")
    system = f"{platform.system()} {platform.release()}"
    python = f"Python {platform.python_version()}"
    return Check(
        "versions", "ok", f"llmhost {version('llmhost')}, {python}, {system}, {', '.join(said)}"
    )


def _processor() -> Check:
    from app.runtime.arithmetic import multiplies_exactly  # noqa: PLC0415 # ONNX Runtime

    info = Path("/proc/cpuinfo")
    text = info.read_text(encoding="utf-8") if info.is_file() else ""
    words = set(text.split())
    lines = (line for line in text.splitlines() if line.startswith("model name"))
    name = next(lines, "").partition(":")[2].strip() or platform.machine()
    has = [feature for feature in FEATURES if feature in words]
    fits = (
        "VNNI or AMX multiplies 8-bit integers at full speed"
        if multiplies_exactly()
        else "no VNNI or AMX: 8-bit integers are multiplied as uint8, at half the speed; "
        "fast (4 bit) saves time for one or two streams"
    )
    cores = f"{psutil.cpu_count(logical=False) or '?'} cores, {psutil.cpu_count()} threads"
    return Check("processor", "ok", f"{name}, {cores}, {' '.join(has) or 'no AVX2'}; {fits}")


def _runtime(settings: Settings) -> Iterator[Check]:
    import onnxruntime as ort  # noqa: PLC0415 # half a second

    providers = ort.get_available_providers()
    yield Check("runtime", "ok", f"ONNX Runtime {ort.__version__} with {', '.join(providers)}")
    cuda, driver = "CUDAExecutionProvider" in providers, shutil.which("nvidia-smi")
    if settings.execution_provider == "cuda" and not cuda:
        text = "CUDA is asked for and this ONNX Runtime has none: pip install 'llmhost[gpu]'"
        yield Check("GPU", "problem", text)
    elif driver and not cuda:
        text = "there is an NVIDIA driver and this ONNX Runtime is for the CPU: llmhost[gpu] has it"
        yield Check("GPU", "warning", text)
    elif cuda and not driver:
        text = "this ONNX Runtime has CUDA and there is no driver: llmhost[cpu] is enough here"
        yield Check("GPU", "warning", text)
    else:
        from app.system import read_gpus  # noqa: PLC0415 # asks the driver

        gpus = [f"{gpu.name}, {gigabytes(gpu.memory_total)}" for gpu in read_gpus() or []]
        yield Check("GPU", "ok", "; ".join(gpus) or "none")


def _memory() -> Check:
    memory = psutil.virtual_memory()
    return Check("memory", "ok", f"{gigabytes(memory.available)} free of {gigabytes(memory.total)}")


def _port(settings: Settings) -> Check:
    check = check_port(settings.host, settings.port)
    url = default_url(settings)
    if check.state == "problem" and answers(url):
        return Check("port", "ok", f"{settings.port}: a server of this project answers at {url}")
    return check


def _files() -> Check:
    import resource  # noqa: PLC0415 # no Windows

    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < 4096:
        return Check("files", "warning", f"at most {hard} open files: raise `ulimit -n` to 65536")
    return Check("files", "ok", f"up to {'any number' if hard < 0 else hard} may be open")


def _settings(chosen: Chosen) -> Iterator[Check]:
    path = config_path(chosen.environ)
    yield Check("settings", "ok", f"file: {path or 'none'}")
    for row in rows_of(chosen):
        if row["origin"] != "default":
            yield Check("settings", "ok", f"{row['name']} = {row['value']}, from {row['place']}")
    settings = chosen.settings
    loopback = settings.host in ("127.0.0.1", "::1", "localhost")
    if not loopback and not settings.require_auth:
        text = (
            f"open to whoever reaches {settings.host}: LLMHOST_REQUIRE_AUTH=true asks for a token"
        )
        yield Check("settings", "warning", text)
