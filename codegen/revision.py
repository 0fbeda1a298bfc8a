"""
Reads one side of a comparison: a revision of the git checkout in a folder, a folder, or one of the two documents.

Not for: comparing. Files of a revision are written to a temporary folder, so that the readers of files serve both.
"""

import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from codegen.contract import ACTIONS, FULL, Contract, build_contract
from codegen.exceptions import ContractError, UnreadableDocument
from codegen.policy_cases import CASES, PolicyCase, read_policy_cases
from codegen.proposals import PROPOSALS, Proposal, read_proposals
from codegen.reader import Document, read_yaml

WORKING_TREE = "working tree"
_SCHEMA = "policy.schema.yaml"
_DOCUMENTS = (f"{FULL}.yaml", f"{ACTIONS}.yaml")
_GIT_TIMEOUT_SECONDS = 60.0  # a blob may have to be fetched in a partial clone


@dataclass(frozen=True, slots=True)
class Side:
    """
    One edition of the contract and what speaks for it.

    Args:
        label: How it was asked for.
        schema: Its `spec/policy.schema.yaml`; empty when there is none.
        problems: What is wrong with cases and proposals that cannot be read.
    """

    label: str
    full: Contract
    actions: Contract
    schema: Document
    cases: tuple[PolicyCase, ...]
    proposals: tuple[Proposal, ...]
    problems: tuple[str, ...]


def read_side(text: str | None, checkout: Path) -> Side:
    """
    Read what BASE or HEAD names.

    Args:
        text: A folder or file that holds the documents, else a revision; `None` for the checkout as it is.
        checkout: The current folder.

    Raises:
        ContractError: Nothing has that name, or its documents do not load.
    """
    if text is None:
        return _read(WORKING_TREE, checkout / "spec")
    if not text.strip():  # an unset variable in CI must not compare the checkout with itself
        raise UnreadableDocument("the name of a side must not be empty; give a revision, a folder or a document.")
    folder = _folder(checkout / text)
    if folder:
        return _read(text, folder)
    with _materialised(text, checkout) as root:
        return _read(text, root / "spec")


def _folder(path: Path) -> Path | None:
    """The folder with the documents that a path leads to; a folder comes before a revision of the same name."""
    try:
        candidates = [path.parent] if path.name in _DOCUMENTS and path.is_file() else [path / "spec", path]
        return next((c for c in candidates if any((c / name).is_file() for name in _DOCUMENTS)), None)
    except (OSError, ValueError):  # no name that a file system knows
        return None


def _read(label: str, folder: Path) -> Side:
    root = folder.parent if folder.name == "spec" else folder
    try:
        # Other files of the policy are held against its schema by `contract check`; here they only have to load.
        full, actions = (_contract(folder, name) for name in (FULL, ACTIONS))
        schema = read_yaml(folder / _SCHEMA) if (folder / _SCHEMA).is_file() else {}
    except ContractError as error:
        raise UnreadableDocument(_located(str(error), label, root)) from None
    cases, problems = _cases(root, label)
    proposals, wrong = read_proposals(folder / PROPOSALS.name, schema)
    return Side(label, full, actions, schema, cases, tuple(proposals), (*problems, *wrong))


def _contract(folder: Path, name: str) -> Contract:
    document = read_yaml(folder / f"{name}.yaml")
    info = document.get("info")
    if not isinstance(info, dict) or "version" not in info or "paths" not in document:
        raise UnreadableDocument(f"spec/{name}.yaml: must have `info.version` and `paths`.")
    return build_contract(name, document)


def _cases(root: Path, label: str) -> tuple[tuple[PolicyCase, ...], tuple[str, ...]]:
    if not (root / CASES).is_dir():
        return (), ()
    try:
        return tuple(read_policy_cases(root)), ()
    except (ContractError, ValueError) as error:
        return (), (_located(str(error), label, root),)


def _located(message: str, label: str, root: Path) -> str:
    """A message that names files as those of a side, not of a temporary folder."""
    return "\n".join(f"{label}: {line.replace(f'{root}/', '')}" for line in message.splitlines())


@contextmanager
def _materialised(revision: str, checkout: Path) -> Iterator[Path]:
    commit = _commit(revision, checkout)
    files = dict(_blobs(commit, checkout))
    missing = [f"spec/{name}" for name in _DOCUMENTS if f"spec/{name}" not in files]
    if missing:
        raise UnreadableDocument(f"{revision}: holds no {' and no '.join(missing)}; choose another revision.")
    contents = _contents(files, checkout)
    with tempfile.TemporaryDirectory(prefix="contract-") as folder:
        root = Path(folder).resolve()
        for name, content in contents.items():
            path = root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        yield root


def _commit(revision: str, checkout: Path) -> str:
    # `--end-of-options`: whatever the revision looks like, it is none of git's options.
    asked = ("rev-parse", "--verify", "--quiet", "--end-of-options", f"{revision}^{{commit}}")
    try:
        return _git(checkout, *asked).decode().strip()
    except UnreadableDocument as error:
        raise UnreadableDocument(
            f"{revision}: is neither a folder with the two documents nor a revision of the git checkout in {checkout}"
            f"{_quoted(error)}. Check the name, or fetch the revision first (`git fetch --unshallow` in CI)."
        ) from None


def _quoted(error: Exception) -> str:
    return f" ({error})" if str(error) else ""


def _blobs(commit: str, checkout: Path) -> Iterator[tuple[str, str]]:
    """Path and id of the plain files that a side is read from; links are no files."""
    listing = _git(checkout, "ls-tree", "-r", "-z", commit, "--", "spec", CASES.as_posix())
    for entry in listing.decode("utf-8", "surrogateescape").split("\0"):
        meta, _, name = entry.partition("\t")
        mode, _, rest = meta.partition(" ")
        path = PurePosixPath(name)
        wanted = path.parent in {PurePosixPath("spec"), PurePosixPath(CASES), PurePosixPath(PROPOSALS)}
        if wanted and mode.startswith("100"):
            yield name, rest.split(" ")[1]


def _contents(files: dict[str, str], checkout: Path) -> dict[str, bytes]:
    asked = "".join(f"{blob}\n" for blob in files.values()).encode()
    answer = _git(checkout, "cat-file", "--batch", stdin=asked)
    contents: dict[str, bytes] = {}
    position = 0
    for name, blob in files.items():
        end = answer.index(b"\n", position)
        head = answer[position:end].split(b" ")
        if len(head) != len(("id", "type", "size")):
            raise UnreadableDocument(f"{name}: git does not have its content ({blob}); fetch the whole history.")
        start = end + 1
        position = start + int(head[-1]) + 1
        contents[name] = answer[start : position - 1]
    return contents


def _git(checkout: Path, *arguments: str, stdin: bytes = b"") -> bytes:
    try:
        done = subprocess.run(  # noqa: S603 - a list without shell; revisions come behind `--end-of-options`
            ["git", *arguments],  # noqa: S607 - whichever git the user has
            cwd=checkout,
            input=stdin,
            capture_output=True,
            check=False,
            timeout=_GIT_TIMEOUT_SECONDS,
        )
    except (OSError, ValueError, subprocess.TimeoutExpired) as error:
        raise UnreadableDocument(f"git cannot be asked ({type(error).__name__}: {error})") from None
    if done.returncode:
        raise UnreadableDocument(done.stderr.decode(errors="replace").strip().rpartition("\n")[2])
    return done.stdout
