"""
Carries the Dockerfile out without a container engine, and shows that what comes of it runs as it is meant to.

    scripts/replay_dockerfile

Not for: what only the base image decides. Debian, Python's patch version and the compilers that lie about are this
machine's.
"""

import argparse
import re
import secrets
import shutil
import stat
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from os import geteuid
from pathlib import Path

from typer import echo

from tests.support.dockerfile import NotUnderstood, Stage, parse_dockerfile
from tests.support.dockerfile_container import Container
from tests.support.dockerfile_stages import Builder, BuiltStage, mount
from tests.support.documents import ROOT

TOOLS = ("mount", "nsenter", "setpriv", "unshare")
STATE = "/var/lib/relay"
SCRATCH = "/tmp"  # noqa: S108 - of the container, where nobody else writes


class Refused(Exception):
    """The replay cannot be done here; the message says what it takes."""


@dataclass(frozen=True, slots=True)
class Image:
    """
    The last stage, ready to be run.

    Args:
        folder: For what is mounted and written beside it.
        key: The relay's, thrown away afterwards.
    """

    stage: BuiltStage
    folder: Path
    key: str

    def started(self, **settings: str) -> Container:
        """A container with the key and some settings."""
        return Container(self.stage, settings, self.folder / f"relay-{secrets.token_hex(4)}.log")


Check = tuple[str, bool]


def main(arguments: Sequence[str] | None = None) -> int:
    """
    Run the command.

    Returns:
        0 when every step and every check passes, 1 when one fails, 2 when nothing could be tried.
    """
    options = _parser().parse_args(arguments)
    try:
        stages = parse_dockerfile((ROOT / "Dockerfile").read_text(encoding="utf-8"))
        require_bases(stages)
        require_machine()
    except (NotUnderstood, Refused) as error:
        echo(f"replay_dockerfile: {error}", err=True)
        return 2
    if options.inside:
        return _replay(stages, Path(options.inside))
    with tempfile.TemporaryDirectory(prefix="replay-dockerfile-") as folder:
        # Mounts and processes of the replay end with it, however it ends.
        own = ["unshare", "--mount", "--propagation", "private", "--pid", "--fork", "--kill-child", "--mount-proc"]
        again = [sys.executable, "-m", "tests.support.dockerfile_replay", "--inside", folder]
        return subprocess.run([*own, *again], cwd=ROOT, check=False).returncode


def require_bases(stages: Sequence[Stage], version: tuple[int, int] = sys.version_info[:2]) -> None:
    """
    Make sure that this interpreter can stand for the one of the base images.

    Args:
        version: Of the interpreter.

    Raises:
        Refused: A stage starts from something else.
    """
    for stage in stages:
        found = re.fullmatch(r"python:(\d+)\.(\d+)-slim(?:-[a-z]+)?(?:@sha256:[0-9a-f]{64})?", stage.base)
        if not found:
            raise Refused(f"FROM {stage.base} must be a slim image of Python, such as python:3.11-slim.")
        if (int(found[1]), int(found[2])) != version:
            raise Refused(f"FROM {stage.base} must be of the Python that runs this, {version[0]}.{version[1]}.")


def require_machine() -> None:
    """
    Make sure that this machine can do it.

    Raises:
        Refused: It is no Linux, the user is not root, or a tool is missing.
    """
    if sys.platform != "linux" or geteuid() != 0:
        raise Refused("needs root on Linux, to lay file systems over this one: sudo scripts/replay_dockerfile")
    if missing := [tool for tool in TOOLS if shutil.which(tool) is None]:
        raise Refused(f"needs {', '.join(missing)}; on Debian: apt-get install mount util-linux")


def _replay(stages: Sequence[Stage], folder: Path) -> int:
    try:
        stage = Builder(folder, ROOT).build(stages)
    except NotUnderstood as error:
        echo(f"replay_dockerfile: {error}", err=True)
        return 1
    mount("-o", "remount,ro", str(stage.tree))
    mount("-t", "tmpfs", "-o", "size=64m,mode=1777", "tmpfs", f"{stage.tree}{SCRATCH}")
    image = Image(stage, folder, "rk_" + secrets.token_urlsafe(32))
    results: list[Check] = []
    for check in CHECKS:
        for promise, kept in check(image):
            echo(f"{'ok' if kept else 'FAILED':<6} {promise}")
            results.append((promise, kept))
    failed = sum(not kept for _, kept in results)
    echo(f"{len(results)} checks, {failed} failed")
    return 1 if failed else 0


def tree_is_clean(image: Image) -> Iterator[Check]:
    """What the last stage has written: the package and its user, nothing that installs, nothing to be tampered with."""
    written = [path for path in image.stage.written.rglob("*") if not path.is_symlink()]
    names = {path.name for path in image.stage.written.glob("opt/*")}
    yield "the image adds the installed package and no build folder", names == {"relay"}
    installed = image.stage.written / "opt/relay"
    tools = [path for path in installed.rglob("*") if re.fullmatch(r"(pip|setuptools|hatchling|wheel)\d*", path.name)]
    yield "what is installed cannot install more", not tools
    modes = [(path, path.stat()) for path in written]
    yield "no file runs with its owner's rights", not any(s.st_mode & (stat.S_ISUID | stat.S_ISGID) for _, s in modes)
    user, _ = image.stage.state.user
    theirs = [p for p, s in modes if s.st_uid == user or stat.S_IMODE(s.st_mode) & 0o1002 == 0o002]
    home = image.stage.written / STATE.lstrip("/")
    yield f"its user can change nothing but {STATE}", all(p == home or home in p.parents for p in theirs)


def refuses_without_key(image: Image) -> Iterator[Check]:
    """Nothing that the image brings lets anybody in."""
    with image.started() as container:
        refused = container.ended() == 2 and "RELAY_KEY" in container.output()
        yield "without a key it ends with 2 and says why", refused


def runs_read_only(image: Image) -> Iterator[Check]:
    """With the defaults: only /tmp can be written to."""
    with image.started(RELAY_KEY=image.key) as container:
        yield "its health check passes", container.becomes_healthy()
        statuses = [container.status(path) for path in ("/livez", "/readyz", "/v1/models")]
        yield "it is alive, ready, and asks for a key", statuses == ["200", "200", "401"]
        yield "it runs as 10001 without capabilities", _unprivileged(container.process.pid)
        writes = [container.run("touch", f"{place}/x").returncode for place in ("/opt/relay", STATE, "/etc")]
        yield "its tree is read-only", 0 not in writes
        yield f"{SCRATCH} is not", container.run("touch", f"{SCRATCH}/x").returncode == 0
        yield "SIGTERM ends it with 0", container.stop() == 0
        yield "its health check fails once it is stopped", not container.healthy()
        yield "its key is in none of its lines", image.key not in container.output()


def keeps_state(image: Image) -> Iterator[Check]:
    """With a volume for state: keys, replies and files outlive the container and are its user's alone."""
    user, group = image.stage.state.user
    mount("-t", "tmpfs", "-o", f"size=64m,mode=0700,uid={user},gid={group}", "tmpfs", f"{image.stage.tree}{STATE}")
    settings = {
        "RELAY_KEY_FILE": f"{STATE}/keys.yaml",
        "RELAY_STORE_URL": f"sqlite+aiosqlite:///{STATE}/relay.db",
        "RELAY_ARTIFACT_URL": f"file://{STATE}/artifacts",
        "RELAY_ARTIFACT_SECRET": secrets.token_hex(32),
    }
    with image.started(RELAY_KEY=image.key) as container:
        made = container.run(
            "relay", "keys", "create", "--file", settings["RELAY_KEY_FILE"], "--id", "a", "--scope", "canonical"
        )
        yield "`relay keys create` makes a key on the volume", made.stdout.startswith("rk_")
    for start in ("first", "second"):
        with image.started(**settings) as container:
            yield f"the {start} start on the volume is healthy", container.becomes_healthy()
            yield f"the {start} stop is clean", container.stop() == 0
    volume = Path(f"{image.stage.tree}{STATE}")
    files = [path for path in volume.iterdir() if path.is_file()]
    yield "what it keeps is its user's alone", bool(files) and all(path.stat().st_mode & 0o077 == 0 for path in files)


CHECKS: tuple[Callable[[Image], Iterator[Check]], ...] = (
    tree_is_clean,
    refuses_without_key,
    runs_read_only,
    keeps_state,
)


def _unprivileged(pid: int) -> bool:
    lines = dict(line.split(":\t", 1) for line in Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines())
    rights = {lines[name] for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")}
    return set(lines["Uid"].split()) == {"10001"} and rights == {"0" * 16} and lines["NoNewPrivs"] == "1"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="replay_dockerfile",
        description="Carries the steps of the Dockerfile out over this machine's file system, without a container "
        "engine and without changing anything, then runs the result read-only as the image's user and checks it.",
    )
    parser.add_argument("--inside", metavar="FOLDER", help=argparse.SUPPRESS)
    return parser


if __name__ == "__main__":
    sys.exit(main())
