"""The machine and the libraries that numbers were computed with."""

from __future__ import annotations

import os
import platform
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

LIBRARIES = ("torch", "torchaudio", "transformers", "accelerate", "datasets", "numpy")


def describe_machine(device: torch.device | None = None) -> dict[str, Any]:
    """What the numbers were computed on: CPU model, cores and, where used, the GPU."""
    cpu = platform.processor() or platform.machine()
    cpu_info = Path("/proc/cpuinfo")
    if cpu_info.exists():
        lines = cpu_info.read_text(encoding="utf-8").splitlines()
        names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
        cpu = names[0] if names else cpu
    on_gpu = device is not None and device.type == "cuda"
    return {
        "cpu": cpu,
        "cores": os.cpu_count(),
        "gpu": torch.cuda.get_device_name(device) if on_gpu else None,
    }


def describe_versions() -> dict[str, str]:
    """Python's version and those of the libraries, by name."""
    return {"python": platform.python_version()} | {name: version(name) for name in LIBRARIES}
