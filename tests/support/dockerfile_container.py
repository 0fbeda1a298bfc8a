"""A stage of a Dockerfile, run as a container would be: as the image's user, without privileges, in its own network."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

from tests.support.dockerfile_stages import BuiltStage
from tests.support.waiting import wait_until

STOP_TIMEOUT_SECONDS = 45
POLL_SECONDS = 0.1
_LOOPBACK_UP = """import fcntl, socket, struct
fcntl.ioctl(socket.socket(), 0x8914, struct.pack("16sh14x", b"lo", 1))  # SIOCSIFFLAGS, IFF_UP
"""
_STATUS = """import http.client, os, sys
c = http.client.HTTPConnection("127.0.0.1", int(os.environ["RELAY_PORT"]), timeout=5)
c.request("GET", sys.argv[1]); print(c.getresponse().status)
"""


class Container:
    """
    The last stage, started as an engine would with `--cap-drop ALL --security-opt no-new-privileges`.

    Args:
        settings: Environment beside the image's own.
        log: Where its output goes.
    """

    def __init__(self, image: BuiltStage, settings: Mapping[str, str], log: Path) -> None:
        self._image = image
        self._environment = {**image.state.environment, **settings}
        self._log = log
        with log.open("wb") as sink:
            self.process = subprocess.Popen(
                [shutil.which("unshare") or "unshare", "--net", *image.inside(*image.state.command)],
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=sink,
                stderr=subprocess.STDOUT,
            )
        network = Path(f"/proc/{self.process.pid}/ns/net")
        wait_until(lambda: network.readlink() != Path("/proc/self/ns/net").readlink())
        # Held open, so that the network is still there for a health check after the end.
        self._held = os.open(network, os.O_RDONLY)
        self._network = f"/proc/{os.getpid()}/fd/{self._held}"
        up = ["nsenter", f"--net={self._network}", sys.executable, "-c", _LOOPBACK_UP]
        subprocess.run(up, check=True, timeout=STOP_TIMEOUT_SECONDS)

    def __enter__(self) -> "Container":
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        os.close(self._held)

    def run(self, *command: str, timeout_seconds: float = STOP_TIMEOUT_SECONDS) -> subprocess.CompletedProcess[str]:
        """Run a command beside the relay, as its user, and in its network."""
        return subprocess.run(
            self._image.inside(*command, network=self._network),
            env=self._environment,
            capture_output=True,
            text=True,
            timeout=timeout_seconds,
            check=False,
        )

    def healthy(self) -> bool:
        """Whether the image's own health check passes, within its own time."""
        state = self._image.state
        try:
            return self.run(*state.health, timeout_seconds=state.health_timeout_seconds).returncode == 0
        except subprocess.TimeoutExpired:
            return False

    def becomes_healthy(self) -> bool:
        """Whether it does within the image's start period."""
        deadline = time.monotonic() + self._image.state.start_period_seconds
        while time.monotonic() < deadline and self.process.poll() is None:
            if self.healthy():
                return True
            time.sleep(POLL_SECONDS)
        return False

    def status(self, path: str) -> str:
        """The status that a path is answered with, without a key."""
        return self.run("python", "-I", "-c", _STATUS, path).stdout.strip()

    def stop(self) -> int | None:
        """Ask it to end as an engine does; returns its exit code, if it ends."""
        self.process.send_signal(signal.Signals[self._image.state.stop_signal])
        return self.ended()

    def ended(self) -> int | None:
        """Wait for its end; returns its exit code, and nothing when it goes on."""
        try:
            return self.process.wait(STOP_TIMEOUT_SECONDS)
        except subprocess.TimeoutExpired:
            return None

    def output(self) -> str:
        """All that it has printed and logged."""
        return self._log.read_text(encoding="utf-8")
