"""What this machine and this process are doing: processors, memory, GPUs.

Knows no model and no HTTP.
"""

import time
from typing import Final

import msgspec
import psutil

try:
    import pynvml
except ImportError:  # nvidia-ml-py comes with the extra `gpu`
    pynvml = None

# psutil measures since its previous call; over a shorter time the kernel's ticks are too coarse
_CPU_INTERVAL_S: Final = 0.5


class Cpu(msgspec.Struct, frozen=True):
    """Processors."""

    usage: float
    """Percent of all of them, since the reading before."""
    cores: int
    """Logical ones."""


class Memory(msgspec.Struct, frozen=True):
    """Main memory, bytes."""

    total: int
    used: int
    available: int
    """What processes could still get without swapping."""
    percent: float
    """Percent that is not available."""


class Gpu(msgspec.Struct, frozen=True):
    """One GPU; memory in bytes."""

    index: int
    name: str
    utilization: int | None
    """Percent of the driver's last sample in which a kernel ran; null: this GPU does not tell."""
    memory_total: int
    memory_used: int
    """Used by all processes together."""


class SystemMeter:
    """Reads the machine's figures without waiting."""

    def __init__(self) -> None:
        self._started_s = time.monotonic()
        psutil.cpu_percent(interval=None)  # the first reading has no time to look back on
        self._read_s = self._started_s
        self._cpu_percent = 0.0

    @property
    def uptime_s(self) -> float:
        """Seconds since this object was made, at start."""
        return time.monotonic() - self._started_s

    def cpu(self) -> Cpu:
        """Read the processors; readings close to each other are the same one."""
        now_s = time.monotonic()
        if now_s - self._read_s >= _CPU_INTERVAL_S:
            self._cpu_percent, self._read_s = psutil.cpu_percent(interval=None), now_s
        return Cpu(usage=self._cpu_percent, cores=psutil.cpu_count() or 1)


def read_memory() -> Memory:
    """Read main memory."""
    memory = psutil.virtual_memory()
    return Memory(memory.total, memory.used, memory.available, memory.percent)


def process_bytes() -> int:
    """Main memory that this process holds."""
    return int(psutil.Process().memory_info().rss)


def read_gpus() -> list[Gpu] | None:
    """Read NVIDIA's GPUs; None without nvidia-ml-py, a driver or a GPU.

    Call it off the event loop: a driver may take its time.
    """
    if pynvml is None:
        return None
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:  # no driver
        return None
    try:
        return [_read_gpu(i) for i in range(pynvml.nvmlDeviceGetCount())] or None
    except pynvml.NVMLError:  # a GPU that fell off the bus takes its figures with it
        return None
    finally:
        pynvml.nvmlShutdown()


def _read_gpu(index: int) -> Gpu:
    handle = pynvml.nvmlDeviceGetHandleByIndex(index)
    try:
        utilization = int(pynvml.nvmlDeviceGetUtilizationRates(handle).gpu)
    except pynvml.NVMLError_NotSupported:  # a GPU that is shared out by MIG
        utilization = None
    memory = pynvml.nvmlDeviceGetMemoryInfo(handle)
    name = pynvml.nvmlDeviceGetName(handle)
    return Gpu(index, name, utilization, int(memory.total), int(memory.used))
