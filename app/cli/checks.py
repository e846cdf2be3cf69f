"""What is looked at before a server starts: port, disk, model, memory. One sentence each.

Cheap, so that a start that can't work fails at once; the worker looks again, with the model open.
Imports no ONNX Runtime.
"""

import errno
import os
import shutil
import socket
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple

import psutil

from app.catalog.memory import check_memory, planned_size
from app.catalog.shelf import Shelf, adapter_number, split_name
from app.cli.models import model_folders, model_names
from app.cli.output import gigabytes
from app.errors import Error, ModelBroken, ModelTooLarge, UnknownModel
from app.manifest import Manifest, read_any_manifest
from app.settings import Settings

LEAST_DISK_BYTES: Final = 100_000_000
"""Free space below which a database may soon fail to grow."""
DEFAULT_MODEL: Final = Settings().model
FAST: Final = "-fast"
"""What `export` appends to the name of the profile `fast`."""


class Check(NamedTuple):
    """What was looked at, and what came of it."""

    name: str
    state: Literal["ok", "warning", "problem"]
    text: str
    """One sentence; of a problem, also what to do."""


def check_start(settings: Settings) -> list[Check]:
    """Look at everything that a start needs."""
    found = [check_port(settings.host, settings.port), check_disk(settings.data_dir)]
    if not settings.model:
        return [*found, Check("model", "ok", "none is loaded at start")]
    check, manifest = check_model(settings)
    found.append(check)
    if manifest is not None:
        found.append(check_free_memory(manifest, settings))
    return found


def check_port(host: str, port: int) -> Check:
    """Look whether we could listen there."""
    try:
        family, kind, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
            probe.listen()
    except socket.gaierror:
        return Check("port", "problem", f"{host!r} is no address: choose another with --host")
    except OSError as error:
        return Check("port", "problem", _why_not(host, port, error))
    return Check("port", "ok", f"{port} of {host} is free")


def check_disk(data_dir: Path) -> Check:
    """Look whether the database has room, and may be written."""
    place = data_dir
    while not place.exists():  # it will be made
        place = place.absolute().parent
    if not place.is_dir() or not os.access(place, os.W_OK | os.X_OK):
        what = "can't be written" if place.is_dir() else "is no folder"
        return Check(
            "disk",
            "problem",
            f"the data directory {str(data_dir)!r} {what}: choose another with --data-dir",
        )
    free = shutil.disk_usage(place).free
    text = f"{gigabytes(free)} free for {str(data_dir)!r}"
    if free < LEAST_DISK_BYTES:
        wanted = gigabytes(LEAST_DISK_BYTES)
        return Check("disk", "problem", f"only {text}, at least {wanted} are needed: make room")
    return Check("disk", "ok", text)


def check_model(settings: Settings) -> tuple[Check, Manifest | None]:
    """Look whether the model that is to be loaded is there and whole."""
    model, folder = settings.model, str(settings.models_dir)
    try:
        base, adapter = split_name(model)
        _, manifest = Shelf(settings.models_dir).find(base)
        if adapter is not None:
            adapter_number(manifest, adapter)
    except UnknownModel:
        there = model_names(settings.models_dir)
        others = f"; or choose one of {', '.join(there[:5])} with --model" if there else ""
        text = f"there is no model {model!r} in {folder!r}: `{pull(model)}` makes it{others}"
        return Check("model", "problem", text), None
    except ModelBroken as error:
        text = f"the model {model!r} is broken, {error}: `{pull(model)}` makes it anew"
        return Check("model", "problem", text), None
    if not isinstance(manifest, Manifest):
        text = f"the model {model!r} is for {manifest.kind}: choose one that generates text"
        return Check("model", "problem", text), None
    size = gigabytes(manifest.size_bytes)
    return Check("model", "ok", f"{model}, {manifest.quantisation.scheme}, {size}"), manifest


def pull(model: str) -> str:
    """The command that makes a model."""
    base, adapter = split_name(model)
    plain = base.removesuffix(FAST)
    source = "" if plain == DEFAULT_MODEL else f" {plain}"
    profile = " --profile fast" if base.endswith(FAST) else ""
    return f"llmhost pull{source}{profile}{f' --adapter {adapter}=FOLDER' if adapter else ''}"


def check_free_memory(manifest: Manifest, settings: Settings) -> Check:
    """Look whether the model fits the memory that is free, as loading it will."""
    slots, capacity = planned_size(manifest, settings)
    free = psutil.virtual_memory().available
    if settings.execution_provider == "cuda":  # reserved at once there: what doesn't fit shows
        return Check("memory", "ok", f"{gigabytes(free)} free")
    try:
        check_memory(manifest, slots, capacity, settings.prefix_cache_mb)
    except ModelTooLarge as error:
        advice = "lower --slots or --context-length, or close what takes memory"
        return Check("memory", "problem", f"{error}: {advice}")
    kv = slots * capacity * manifest.graph.kv_bytes_per_token
    return Check(
        "memory",
        "ok",
        f"{gigabytes(free)} free; the model takes {gigabytes(manifest.size_bytes)}, and up to "
        f"{gigabytes(kv)} for {slots} slots of {capacity} tokens",
    )


def check_models(models_dir: Path) -> list[Check]:
    """Look at every model on disk."""
    found = []
    for folder in model_folders(models_dir):
        try:
            manifest = read_any_manifest(folder)
        except Error as error:
            found.append(Check("model", "warning", f"{folder.name} is broken, {error}"))
        else:
            text = f"{manifest.model_id}: whole, {gigabytes(manifest.size_bytes)}"
            found.append(Check("model", "ok", text))
    return found


def _why_not(host: str, port: int, error: OSError) -> str:
    match error.errno:
        case errno.EADDRINUSE:
            other = port + 1 if port < 65_535 else port - 1
            return (
                f"port {port} of {host} is in use by {_holder(port)}: stop that, or choose another "
                f"with --port {other}"
            )
        case errno.EACCES:
            return f"port {port} is for the system alone: choose one from 1024 on with --port"
        case errno.EADDRNOTAVAIL:
            return f"{host} is no address of this machine: choose another with --host"
    return f"port {port} of {host} can't be had, {error.strerror}: choose another with --port"


def _holder(port: int) -> str:
    """Name the process that listens on a port."""
    for found in psutil.net_connections(kind="tcp"):
        where: Any = found.laddr  # () where there is none: never where somebody listens
        if found.status == psutil.CONN_LISTEN and where.port == port and found.pid:
            try:
                return f"process {found.pid} ({psutil.Process(found.pid).name()})"
            except psutil.Error:  # it has just ended
                break
    return "another process"
