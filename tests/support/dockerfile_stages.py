"""
Carries the stages of a Dockerfile out on this machine, without a container engine and without changing the machine.

Each stage is this machine's own file system with the stage's changes laid over it (overlayfs). Needs root, and a mount
namespace of its own, or the mounts stay. Opens no sockets; what steps run may reach the package index.
"""

import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from typer import echo

from tests.support.dockerfile import ImageState, Stage, Step, context_files, copied

STEP_TIMEOUT_SECONDS = 600
LINE_CHARACTERS = 110  # of what is printed about a step
# Left out of what stages see of this machine: what it was given by hand, and the checkout.
_HIDDEN = ("home", "media", "mnt", "opt", "root", "srv", "tmp", "var/tmp")
# A build sees these of its surroundings and no others: how to reach the package index.
_HANDED_ON = re.compile(r"PIP_\w+|SSL_CERT_\w+|\w+_CA_BUNDLE|\w+_proxy|\w+_PROXY")


@dataclass(frozen=True, slots=True)
class BuiltStage:
    """A stage that was carried out: its whole tree, and what its steps have written of that."""

    tree: Path
    written: Path
    state: ImageState

    def inside(self, *command: str, network: str = "", root: bool = False) -> list[str]:
        """
        The call that runs a command in the tree.

        Args:
            network: A file of /proc that stands for one; by default this machine's.
            root: Whether as root, as builds are; otherwise as the image's user without any privilege.
        """
        user, group = self.state.user
        rights = ["--clear-groups", "--no-new-privs", "--bounding-set=-all", "--inh-caps=-all"]
        drop = [] if root else ["setpriv", f"--reuid={user}", f"--regid={group}", *rights]
        enter = ["nsenter", f"--net={network}"] if network else []
        return [*enter, "unshare", f"--root={self.tree}", f"--wd={self.state.folder}", "--", *drop, *command]


class Builder:
    """
    Carries stages out, one after the other.

    Args:
        folder: Where everything lies; empty.
        checkout: What the build context is taken from.
    """

    def __init__(self, folder: Path, checkout: Path) -> None:
        self._folder = folder
        self._checkout = checkout
        self._context = folder / "context"
        self._built: dict[str, BuiltStage] = {}

    def build(self, stages: Sequence[Stage]) -> BuiltStage:
        """Carry all stages out, each over this machine's file system; returns the last."""
        self.lay_context()
        for number, stage in enumerate(stages):
            built = self._start(str(number))
            self.carry_out(stage, built)
        return built

    def lay_context(self) -> None:
        """Gather what an engine would be given."""
        ignore = (self._checkout / ".dockerignore").read_text(encoding="utf-8")
        for name in context_files(self._checkout, ignore):
            target = self._context / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(self._checkout / name, target)

    def carry_out(self, stage: Stage, built: BuiltStage) -> None:
        """
        Carry the steps of one stage out.

        Args:
            built: Where; its state goes along.

        Raises:
            NotUnderstood: A step failed, or cannot be carried out here.
        """
        for step in stage.steps:
            began = time.monotonic()
            built.state.apply(step)
            if step.instruction == "WORKDIR":
                _within(built.tree, built.state.folder).mkdir(parents=True, exist_ok=True)
            elif step.instruction == "COPY":
                self._copy(step, built)
            elif step.instruction == "RUN":
                _run(step, built)
            took = f"{time.monotonic() - began:5.1f} s"
            echo(
                f"{stage.name or 'image':<6} line {step.line:>2} {took}  {step.instruction} {step.text}"[
                    :LINE_CHARACTERS
                ]
            )
        self._built[stage.name] = built

    def _lay_base(self, written: Path) -> None:
        """What every stage begins with: folders of this machine hidden, and its name servers in a file of its own."""
        for name in (*_HIDDEN, str(self._checkout).lstrip("/")):
            hidden = written / name
            hidden.mkdir(parents=True, exist_ok=True)
            os.setxattr(hidden, "trusted.overlay.opaque", b"y")
        for name in ("tmp", "var/tmp"):
            (written / name).chmod(0o1777)
        (written / "etc").mkdir()
        shutil.copy("/etc/resolv.conf", written / "etc/resolv.conf")  # a link into a folder of its own on some systems

    def _start(self, name: str) -> BuiltStage:
        tree, written, work = (self._folder / name / part for part in ("tree", "written", "work"))
        for path in (tree, written, work):
            path.mkdir(parents=True)
        self._lay_base(written)
        layers = f"lowerdir=/,upperdir={written},workdir={work}"
        mount("-t", "overlay", "overlay", "-o", layers, str(tree))
        mount("-t", "proc", "proc", f"{tree}/proc")
        mount("--rbind", "/dev", f"{tree}/dev")
        _lay_python(Path(sys.base_prefix), tree)
        return BuiltStage(tree, written, ImageState())

    def _copy(self, step: Step, built: BuiltStage) -> None:
        sources, destination = copied(step, built.state.environment)
        origin = self._context
        if "from" in step.flags:
            if step.flags["from"] not in self._built:
                raise step.error("must be --from a stage before it")
            origin = self._built[step.flags["from"]].tree
        target = _within(built.tree, built.state.folder / destination)
        for source in sources:
            found = _within(origin, PurePosixPath("/") / source)
            if found.is_dir():
                shutil.copytree(found, target, symlinks=True, dirs_exist_ok=True)
            elif found.is_file():
                into = destination.endswith(("/", "."))
                (target if into else target.parent).mkdir(parents=True, exist_ok=True)
                shutil.copy(found, target)
            else:
                raise step.error(f"names {source}, which is not there; see .dockerignore")


def mount(*arguments: str) -> None:
    """
    Call `mount`.

    Raises:
        subprocess.CalledProcessError: It failed; what it said stands on standard error.
    """
    subprocess.run([shutil.which("mount") or "mount", *arguments], check=True, timeout=STEP_TIMEOUT_SECONDS)


def _run(step: Step, built: BuiltStage) -> None:
    if step.text.startswith("["):
        raise step.error("must be a shell text")
    network = step.flags.get("network", "default")
    if network not in {"default", "none"}:
        raise step.error("must have --network=default or none")
    alone = ["unshare", "--net"] if network == "none" else []
    handed_on = {name: value for name, value in os.environ.items() if _HANDED_ON.fullmatch(name)}
    ended = subprocess.run(
        [*alone, *built.inside("/bin/sh", "-c", step.text, root=built.state.user == (0, 0))],
        env={**handed_on, "HOME": "/root", **built.state.environment},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=STEP_TIMEOUT_SECONDS,
        check=False,
    )
    if ended.returncode != 0:
        raise step.error(f"ended with {ended.returncode}:\n{ended.stdout}")


def _lay_python(prefix: Path, tree: Path) -> None:
    """Put this interpreter where the base image has its own, and leave it where it looks for its libraries."""
    if prefix == Path("/usr"):
        (tree / "usr/local/bin/python").symlink_to(prefix / "bin/python3")
        return
    for place in {Path("/usr/local"), prefix}:
        seen = _within(tree, PurePosixPath(place))
        seen.mkdir(parents=True, exist_ok=True)
        mount("--bind", "-o", "ro", str(prefix), str(seen))


def _within(tree: Path, path: PurePosixPath) -> Path:
    """A path of a tree, as seen from outside."""
    return tree / path.relative_to("/")
