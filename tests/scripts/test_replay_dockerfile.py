"""
What `scripts/replay_dockerfile` reads, refuses and hands on. Opens no sockets.

Not for: the replay itself, which needs root and the package index; `scripts/replay_dockerfile` is run on purpose.
"""

import re
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

import pytest

from tests.support import dockerfile_replay
from tests.support.deployments import image_of
from tests.support.dockerfile import (
    DEFAULT_PATH,
    ImageState,
    NotUnderstood,
    Stage,
    context_files,
    copied,
    parse_dockerfile,
)
from tests.support.dockerfile_replay import Refused, main, require_bases, require_machine
from tests.support.dockerfile_stages import Builder, BuiltStage
from tests.support.documents import ROOT
from tests.support.script_checkouts import ScriptCheckout

SMALL = """# a comment
ARG IMAGE=python:3.11-slim
FROM ${IMAGE} AS build
RUN one \\
    # a comment between lines
    && two
COPY a b /there/
FROM $IMAGE
COPY --from=build /there /there
ENV A=1 PATH=/there/bin:$PATH
USER 10:20
WORKDIR /home
WORKDIR x
STOPSIGNAL SIGINT
HEALTHCHECK --timeout=3s --start-period=9s CMD ["ask", "/livez"]
CMD ["run", "it"]
"""
IGNORE = "# all but these\n*\n!kept\n!one/file.txt\n**/__pycache__\n**/*.py[cod]\n"


def test_stages_are_read_with_their_lines() -> None:
    """Continued lines are joined, comments fall out, arguments are filled in, flags stand by themselves."""
    build, last = parse_dockerfile(SMALL)
    assert (build.base, build.name, last.base, last.name) == ("python:3.11-slim", "build", "python:3.11-slim", "")
    assert [(step.line, step.instruction, step.text) for step in build.steps] == [
        (4, "RUN", "one && two"),
        (7, "COPY", "a b /there/"),
    ]
    assert last.steps[0].flags == {"from": "build"}
    assert copied(build.steps[1], {}) == (["a", "b"], "/there/")


def test_a_container_is_started_as_the_last_stage_says() -> None:
    """Environment, user, folder, command, signal and health check are those of the last lines that set them."""
    image = image_of(parse_dockerfile(SMALL))
    assert image.environment == {"A": "1", "PATH": f"/there/bin:{DEFAULT_PATH}"}
    assert (image.user, image.folder) == ((10, 20), PurePosixPath("/home/x"))
    assert (image.command, image.health, image.stop_signal) == (["run", "it"], ["ask", "/livez"], "SIGINT")
    assert (image.health_timeout_seconds, image.start_period_seconds) == (3, 9)


@pytest.mark.parametrize(
    "line",
    [
        "ADD https://example.com/a.tar /",
        'ENTRYPOINT ["run"]',
        "run true",
        "COPY --chown=1:1 a b",
        "RUN --mount=type=cache,target=/x true",
        "RUN cat <<END",
        "RUN true \\",
        "ARG LATE=1",
        "ENV NAME value",
        "ENV A=$NOT_SET",
        "USER relay",
        "CMD relay serve",
        "CMD []",
        "HEALTHCHECK NONE",
        'HEALTHCHECK --timeout=1m CMD ["x"]',
        "HEALTHCHECK CMD curl localhost",
    ],
)
def test_what_is_not_understood_is_refused_with_its_line(line: str) -> None:
    """Nothing is passed over or guessed: the replay would prove less than it says."""
    with pytest.raises(NotUnderstood, match=r"^line 2: "):
        image_of(parse_dockerfile(f"FROM python:3.11-slim\n{line}\n"))


@pytest.mark.parametrize("text", ["", "# nothing\n", "RUN true\nFROM x\n", "FROM a AS b AS c\n", "FROM $NOT_SET\n"])
def test_a_file_without_a_stage_is_refused(text: str) -> None:
    """There is something to build, and it begins with a stage."""
    with pytest.raises(NotUnderstood):
        parse_dockerfile(text)


@pytest.mark.parametrize("text", ["a", "*.py b/", "../a b", "a b c", '["a", "b"]'])
def test_a_copy_that_is_not_plain_is_refused(text: str) -> None:
    """Patterns, lists and ways out of the build context are not understood."""
    (stage,) = parse_dockerfile(f"FROM x\nCOPY {text}\n")
    with pytest.raises(NotUnderstood, match=r"^line 2: COPY "):
        copied(stage.steps[0], {})


def test_the_context_is_what_dockerignore_lets_through(tmp_path: Path) -> None:
    """The last pattern that fits a file or a folder above it decides, as with an engine, for hidden files too."""
    for name in (
        ".env",
        ".git/config",
        "other/file.txt",
        "one/file.txt",
        "one/other.txt",
        "kept/a.txt",
        "kept/deep/b.txt",
        "kept/deep/__pycache__/c.txt",
        "kept/d.pyc",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    assert list(map(str, context_files(tmp_path, IGNORE))) == ["kept/a.txt", "kept/deep/b.txt", "one/file.txt"]


def test_the_project_s_own_file_is_understood() -> None:
    """The Dockerfile of this checkout can be replayed: every step is one that is carried out."""
    stages = parse_dockerfile((ROOT / "Dockerfile").read_text(encoding="utf-8"))
    require_bases(stages, (3, 11))
    assert image_of(stages).health


@pytest.mark.parametrize("base", ["python:3.12-slim", "python:3.11", "python:3.11-alpine", "debian:13-slim", "build"])
def test_a_base_that_this_python_cannot_stand_for_is_refused(base: str) -> None:
    """Another version, another C library or no Python at all would make the replay say nothing."""
    with pytest.raises(Refused, match=re.escape(base)):
        require_bases([Stage(base, "")], (3, 11))


def test_a_base_may_be_pinned() -> None:
    """A digest behind the tag changes nothing."""
    require_bases([Stage(f"python:3.11-slim-trixie@sha256:{'0' * 64}", "")], (3, 11))


def test_others_than_root_are_told_what_it_takes(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without root nothing is tried, and the command that works is named."""
    monkeypatch.setattr(dockerfile_replay, "require_bases", lambda _: None)
    monkeypatch.setattr(dockerfile_replay, "geteuid", lambda: 1000)
    assert main([]) == 2
    assert "sudo scripts/replay_dockerfile" in capsys.readouterr().err


def test_missing_tools_are_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """What is missing is named with the package that has it."""
    monkeypatch.setattr(dockerfile_replay, "geteuid", lambda: 0)
    monkeypatch.setattr("sys.platform", "linux")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(Refused, match=r"needs mount, nsenter, setpriv, unshare.*apt-get install"):
        require_machine()


def test_a_dockerfile_that_is_not_understood_is_told(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """The line is named and nothing is tried."""
    (tmp_path / "Dockerfile").write_text("FROM python:3.11-slim\nADD a b\n", encoding="utf-8")
    monkeypatch.setattr(dockerfile_replay, "ROOT", tmp_path)
    assert main([]) == 2
    assert "line 2: " in capsys.readouterr().err


class TestSteps:
    """Steps that need no file system of their own, in a plain folder."""

    @staticmethod
    def carry_out(folder: Path, line: str, files: Mapping[str, str]) -> Path:
        """Carry one step out; returns the stage's tree."""
        checkout = folder / "checkout"
        for name, text in files.items():
            (checkout / name).parent.mkdir(parents=True, exist_ok=True)
            (checkout / name).write_text(text, encoding="utf-8")
        builder = Builder(folder / "work", checkout)
        builder.lay_context()
        (stage,) = parse_dockerfile(f"FROM x\n{line}\n")
        builder.carry_out(stage, BuiltStage(folder / "tree", folder / "tree", ImageState()))
        return folder / "tree"

    def test_files_and_folders_are_copied_as_an_engine_does(self, tmp_path: Path) -> None:
        """A file keeps its name in a folder, a folder hands its content on."""
        files = {".dockerignore": ".*\n", "a.txt": "a", "folder/b.txt": "b"}
        tree = self.carry_out(tmp_path, "WORKDIR /src\nCOPY a.txt ./\nCOPY folder kept", files)
        assert (tree / "src/a.txt").read_text(encoding="utf-8") == "a"
        assert (tree / "src/kept/b.txt").read_text(encoding="utf-8") == "b"

    @pytest.mark.parametrize(
        "line",
        ["COPY --from=nothing /a /a", 'RUN ["true"]', "RUN --network=host true"],
    )
    def test_what_cannot_be_carried_out_is_reported(self, tmp_path: Path, line: str) -> None:
        """A stage that is not there, a form or a network that the replay does not have."""
        with pytest.raises(NotUnderstood, match=r"^line 2: "):
            self.carry_out(tmp_path, line, {".dockerignore": "*\n"})

    def test_what_dockerignore_leaves_out_cannot_be_copied(self, tmp_path: Path) -> None:
        """A source that an engine would not have is reported."""
        with pytest.raises(NotUnderstood, match=r"names a\.txt, which is not there; see \.dockerignore"):
            self.carry_out(tmp_path, "COPY a.txt /", {".dockerignore": "*\n", "a.txt": "a"})


def test_the_script_hands_arguments_on(checkout: ScriptCheckout) -> None:
    """The script adds nothing but the set-up; the verdict is that of the module."""
    checkout.double(".venv/bin/python", 'echo "ran $*"\nexit 3')
    result = checkout.script("replay_dockerfile", "--help")
    assert (result.returncode, result.stdout) == (3, "ran -m tests.support.dockerfile_replay --help\n")
    assert checkout.calls("setup") == [""]
