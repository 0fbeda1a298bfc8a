"""A copy of this checkout in which everything is covered, for tests that take something away."""

import shutil
from collections import Counter
from pathlib import Path

from codegen.contract import FULL, read_contract
from codegen.evidence import EVIDENCE, Evidence, evidence_table
from codegen.pin import LOCK, read_lock
from codegen.policy_cases import CASES
from tests.support.documents import ROOT

CONTRACT = read_contract(ROOT, FULL)
SPEC = Path("spec") / f"{FULL}.yaml"
LOCK_LINES = Counter(line.plain_place for line in read_lock(ROOT / LOCK).values())


def write_covered_checkout(root: Path) -> Path:
    """Write all that `contract coverage` reads, with evidence for every operation; returns the root."""
    files = [SPEC, Path("spec/policy.schema.yaml"), LOCK]
    for pattern in ("handlers/*.py", "handlers/*/__init__.py", f"{CASES}/*.yaml"):
        files += [path.relative_to(ROOT) for path in ROOT.glob(pattern)]
    for file in files:
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / file, root / file)
    (root / EVIDENCE).parent.mkdir(exist_ok=True)
    (root / EVIDENCE).write_text(
        evidence_table(
            {o.id: Evidence(o.served, not o.open, LOCK_LINES[o.path, o.method]) for o in CONTRACT},
        ),
        encoding="utf-8",
    )
    return root


def replace_once(path: Path, old: str, new: str) -> None:
    """Replace a text that stands exactly once in a file."""
    text = path.read_text(encoding="utf-8")
    assert text.count(old) == 1, f"{old!r} stands {text.count(old)} times in {path}"
    path.write_text(text.replace(old, new), encoding="utf-8")
