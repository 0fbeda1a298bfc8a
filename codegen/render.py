"""
Computes every generated file from the hand-written contract, and writes or compares them.

Reads `spec/*.yaml` and `spec/upstream.*.tsv` of a checkout, writes only `spec/generated/`.
"""

import difflib
from collections.abc import Mapping
from pathlib import Path

from codegen import policy_html, policy_page, policy_table, tools_page
from codegen.contract import ACTIONS, FULL, read_contract
from codegen.openapi_json import render_openapi_json
from codegen.tools import build_tools
from codegen.upstream_summary import summarise_upstream

GENERATED = Path("spec") / "generated"
MAX_DIFF_LINES = 60


def render(root: Path) -> Mapping[str, str]:
    """
    Compute all generated files.

    Args:
        root: The project's folder.

    Returns:
        File name inside `spec/generated` to content.

    Raises:
        ContractError: The contract cannot be read or breaks its own rules.
    """
    full = read_contract(root, FULL)
    actions = read_contract(root, ACTIONS)
    return {
        f"{FULL}.json": render_openapi_json(full),
        f"{ACTIONS}.json": render_openapi_json(actions),
        policy_table.FILE_NAME: policy_table.render_policy_table(full),
        policy_page.FILE_NAME: policy_page.render_policy_page(full),
        policy_html.FILE_NAME: policy_html.render_policy_html(full, summarise_upstream(root, full)),
        tools_page.FILE_NAME: tools_page.render_tools_page(build_tools(full, actions)),
    }


def write(root: Path) -> list[str]:
    """
    Write the generated files and delete what is no longer generated.

    Returns:
        Names of the files that changed.
    """
    folder = root / GENERATED
    files = render(root)
    folder.mkdir(parents=True, exist_ok=True)
    changed = [name for name, content in files.items() if _current(folder / name) != content]
    for name in changed:
        (folder / name).write_text(files[name], encoding="utf-8")
    for stray in _strays(folder, files):
        (folder / stray).unlink()
        changed.append(stray)
    return changed


def stale(root: Path) -> dict[str, str]:
    """
    Compare the generated files with what the contract says now.

    Returns:
        Name of each stale, missing or stray file to a short diff.
    """
    folder = root / GENERATED
    files = render(root)
    diffs = {name: _diff(name, _current(folder / name), content) for name, content in files.items()}
    diffs |= {name: f"{name}: is not generated any more\n" for name in _strays(folder, files)}
    return {name: diff for name, diff in diffs.items() if diff}


def _current(path: Path) -> str:
    return path.read_text(encoding="utf-8") if path.exists() else ""


def _strays(folder: Path, files: Mapping[str, str]) -> list[str]:
    return sorted(path.name for path in folder.glob("*") if path.name not in files)


def _diff(name: str, old: str, new: str) -> str:
    if old == new:
        return ""
    lines = list(
        difflib.unified_diff(old.splitlines(), new.splitlines(), f"{name} (on disk)", f"{name} (rendered)", lineterm="")
    )
    more = [f"… {len(lines) - MAX_DIFF_LINES} more lines"] if len(lines) > MAX_DIFF_LINES else []
    return "\n".join([*lines[:MAX_DIFF_LINES], *more]) + "\n"
