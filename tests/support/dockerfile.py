"""
Reads a Dockerfile and its `.dockerignore`, as far as this project's own use the language; the rest is refused.

Not for: running anything; `tests.support.dockerfile_replay` does.
"""

import json
import os
import re
import shlex
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

# What containers start with when their image says nothing else.
DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

_FLAGS: Mapping[str, frozenset[str]] = {
    "FROM": frozenset(),
    "ARG": frozenset(),
    "CMD": frozenset(),
    "COPY": frozenset({"from"}),
    "ENV": frozenset(),
    "EXPOSE": frozenset(),
    "HEALTHCHECK": frozenset({"interval", "timeout", "start-period", "retries"}),
    "LABEL": frozenset(),
    "RUN": frozenset({"network"}),
    "STOPSIGNAL": frozenset(),
    "USER": frozenset(),
    "WORKDIR": frozenset(),
}
_INSTRUCTION = re.compile(r"([A-Z]+)\s+(.*)")
_FLAG = re.compile(r"--([a-z-]+)=(\S+)\s+")
_FROM = re.compile(r"(\S+)(?:\s+AS\s+([a-z][a-z0-9_.-]*))?")
_VARIABLE = re.compile(r"\$(?:\{([A-Za-z_]\w*)\}|([A-Za-z_]\w*))")
_USER = re.compile(r"(\d+):(\d+)")
_DURATION = re.compile(r"(\d+)s")


class NotUnderstood(Exception):
    """A line of a Dockerfile that is wrong, or that nothing here can read."""


@dataclass(frozen=True, slots=True)
class Step:
    """
    One instruction.

    Args:
        line: Where it begins, from 1.
        text: What follows its flags, with continued lines joined.
    """

    line: int
    instruction: str
    flags: Mapping[str, str]
    text: str

    def error(self, problem: str) -> NotUnderstood:
        """What is wrong with it, with its line."""
        return NotUnderstood(f"line {self.line}: {self.instruction} {problem}")

    def exec_form(self) -> list[str]:
        """
        Program and arguments of an instruction that names them as a JSON list.

        Raises:
            NotUnderstood: It is no list of strings; the shell form would put a shell in the program's place.
        """
        try:
            words = json.loads(self.text)
        except json.JSONDecodeError:
            words = None
        if not isinstance(words, list) or not words or not all(isinstance(word, str) for word in words):
            raise self.error("must be a JSON list of strings")
        return words


@dataclass(frozen=True, slots=True)
class Stage:
    """
    What one `FROM` begins.

    Args:
        base: The image that it starts from.
        name: Of `AS`, or empty.
    """

    base: str
    name: str
    steps: list[Step] = field(default_factory=list)


@dataclass(slots=True)
class ImageState:
    """What the instructions of a stage have set so far, and what a container is started with in the end."""

    environment: dict[str, str] = field(default_factory=lambda: {"PATH": DEFAULT_PATH})
    folder: PurePosixPath = field(default_factory=lambda: PurePosixPath("/"))
    user: tuple[int, int] = (0, 0)
    command: list[str] = field(default_factory=list)
    health: list[str] = field(default_factory=list)
    health_timeout_seconds: int = 30
    start_period_seconds: int = 0
    stop_signal: str = "SIGTERM"

    def apply(self, step: Step) -> None:
        """
        Take over what an instruction sets; those that change files change nothing here.

        Raises:
            NotUnderstood: It is written in another way than this project writes it.
        """
        match step.instruction:
            case "ENV":
                self.environment.update(pairs(step, self.environment))
            case "WORKDIR":
                self.folder /= expand(step, step.text, self.environment)
            case "USER":
                found = _USER.fullmatch(step.text)
                if not found:
                    raise step.error("must be two numbers, user:group")
                self.user = (int(found[1]), int(found[2]))
            case "CMD":
                self.command = step.exec_form()
            case "STOPSIGNAL":
                self.stop_signal = step.text
            case "HEALTHCHECK":
                keyword, _, command = step.text.partition(" ")
                if keyword != "CMD":
                    raise step.error("must have flags and CMD")
                self.health = Step(step.line, step.instruction, {}, command.strip()).exec_form()
                self.health_timeout_seconds = _seconds(step, "timeout", 30)
                self.start_period_seconds = _seconds(step, "start-period", 0)
            case "LABEL":
                pairs(step, {})


def parse_dockerfile(text: str) -> list[Stage]:
    """
    Read a Dockerfile.

    Returns:
        Its stages in order; defaults of `ARG` before the first one are filled in.

    Raises:
        NotUnderstood: An instruction, a flag or a form that this project does not use.
    """
    arguments: dict[str, str] = {}
    stages: list[Stage] = []
    for step in _steps(text):
        if step.instruction == "ARG":
            if stages:
                raise step.error("must stand before the first FROM")
            arguments.update(pairs(step, {}))
        elif step.instruction == "FROM":
            found = _FROM.fullmatch(step.text)
            if not found:
                raise step.error("must be an image, or an image AS a name")
            stages.append(Stage(expand(step, found[1], arguments), found[2] or ""))
        elif not stages:
            raise step.error("must stand after FROM")
        else:
            stages[-1].steps.append(step)
    if not stages:
        raise NotUnderstood("there is no FROM")
    return stages


def copied(step: Step, variables: Mapping[str, str]) -> tuple[list[str], str]:
    """
    Sources and destination of a `COPY`.

    Raises:
        NotUnderstood: It holds a pattern, a list or a path that leads out of its folder.
    """
    words = [expand(step, word, variables) for word in step.text.split()]
    if len(words) < 2 or re.search(r"[\[\]*?\"'<]", step.text):
        raise step.error("must be plain paths")
    if any(".." in PurePosixPath(word).parts for word in words):
        raise step.error("must not lead out of its folder")
    if len(words) > 2 and not words[-1].endswith("/"):
        raise step.error("of several files must end with a folder")
    return words[:-1], words[-1]


def pairs(step: Step, variables: Mapping[str, str]) -> dict[str, str]:
    """
    `NAME=value` of `ARG`, `ENV` and `LABEL`.

    Raises:
        NotUnderstood: Something has no value, or names what is not set.
    """
    found = {}
    for word in shlex.split(step.text):
        name, equals, value = word.partition("=")
        if not equals:
            raise step.error("must be NAME=value")
        found[name] = expand(step, value, variables)
    return found


def expand(step: Step, text: str, variables: Mapping[str, str]) -> str:
    """
    Put variables in.

    Raises:
        NotUnderstood: One is not set; an engine would take it for empty.
    """

    def value(found: re.Match[str]) -> str:
        name = found[1] or found[2]
        if name not in variables:
            raise step.error(f"names {name}, which is not set")
        return variables[name]

    return _VARIABLE.sub(value, text)


def context_files(root: Path, ignore: str) -> Iterator[PurePosixPath]:
    """
    Files of a folder that its `.dockerignore` lets into the build context.

    Args:
        ignore: The text of that file.
    """
    lines = [line for line in map(str.strip, ignore.splitlines()) if line and not line.startswith("#")]
    rules = [_rule(line) for line in lines]
    inside = [line.removeprefix("!") for line in lines if line.startswith("!")]
    for place, folders, files in os.walk(root):
        here = PurePosixPath(Path(place).relative_to(root).as_posix())
        # Left out as a whole, unless something in it is let in again.
        folders[:] = [
            name
            for name in sorted(folders)
            if not _ignored(here / name, rules) or any(line.startswith(f"{here / name}/") for line in inside)
        ]
        yield from (here / name for name in sorted(files) if not _ignored(here / name, rules))


def _steps(text: str) -> Iterator[Step]:
    for number, joined in _joined(text):
        found = _INSTRUCTION.fullmatch(joined)
        if not found or found[1] not in _FLAGS:
            raise NotUnderstood(f"line {number}: must begin with one of {', '.join(_FLAGS)}")
        instruction, rest = found[1], found[2]
        flags = {}
        while flag := _FLAG.match(rest):
            flags[flag[1]] = flag[2]
            rest = rest[flag.end() :]
        step = Step(number, instruction, flags, rest.strip())
        if unknown := sorted(flags.keys() - _FLAGS[instruction]):
            raise step.error(f"has --{unknown[0]}, which is not understood")
        if "<<" in step.text:
            raise step.error("must not hold a here-document")
        yield step


def _joined(text: str) -> Iterator[tuple[int, str]]:
    """Instructions with the line that each begins on, without comments and empty lines."""
    parts: list[str] = []
    began = 0
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        began = began if parts else number
        parts.append(line.removesuffix("\\").strip())
        if not line.endswith("\\"):
            yield began, " ".join(parts)
            parts = []
    if parts:
        raise NotUnderstood(f"line {began}: is continued by nothing")


def _seconds(step: Step, flag: str, default: int) -> int:
    found = _DURATION.fullmatch(step.flags.get(flag, f"{default}s"))
    if not found:
        raise step.error(f"must have --{flag} in whole seconds, as 3s")
    return int(found[1])


def _rule(line: str) -> tuple[re.Pattern[str], bool]:
    """A pattern of `.dockerignore`, and whether it leaves out."""
    pattern = line.removeprefix("!").strip("/")
    parts = []
    for part in re.split(r"(\*\*/|\*\*|\*|\?|\[[^\]]+\])", pattern):
        known = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}
        parts.append(known.get(part) or (part if part.startswith("[") else re.escape(part)))
    return re.compile("".join(parts)), not line.startswith("!")


def _ignored(path: PurePosixPath, rules: Iterable[tuple[re.Pattern[str], bool]]) -> bool:
    """The last pattern that fits the file or a folder above it decides."""
    names = [str(path), *(str(parent) for parent in path.parents if parent.name)]
    ignored = False
    for pattern, leaves_out in rules:
        if any(pattern.fullmatch(name) for name in names):
            ignored = leaves_out
    return ignored
