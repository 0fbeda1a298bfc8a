"""What a run was measured on, in words for the page: nothing that names the machine."""

import os
import platform
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import psutil

from tests.bench.processes import CORES

_CPU_INFO = Path("/proc/cpuinfo")


@dataclass(frozen=True)
class Machine:
    """
    Where and with what it was measured.

    Args:
        text: One phrase.
    """

    text: str


def this_machine() -> Machine:
    """The one that this runs on."""
    model = re.search(r"^model name\s*:\s*(.+)$", _CPU_INFO.read_text(encoding="utf-8"), re.MULTILINE)
    processor = model[1].strip() if model else platform.machine()
    memory_gib = psutil.virtual_memory().total / 2**30
    told = subprocess.run(
        [shutil.which("wrk") or "wrk", "-v"], capture_output=True, text=True, check=False
    ).stdout.split()
    wrk = told[1].removeprefix("debian/") if len(told) > 1 else "of unknown version"
    kernel = re.match(r"\d+\.\d+", os.uname().release)
    return Machine(
        f"{processor}, {CORES} cores, {memory_gib:.0f} GiB, Linux {kernel[0] if kernel else ''}, "
        f"Python {platform.python_version()}, wrk {wrk}"
    )
