"""Breaks critical lines on purpose and runs the tests that must notice: `python -m tests.mutations [NAME…]`.

A mutation is an entry of a TOML file beside this one: the file, the code, what it becomes, and the tests
that must fail. The tree is copied, the code changed there, and the tests run on the copy. The table says
which test caught each; the exit status is 1 if one survived, or if its code is no longer there exactly once.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue

ROOT = Path(__file__).resolve().parents[2]
TREE = (
    "edge_tui",
    "decoders",
    "tests",
    "themes",
    "presets",
    "tools",
    "config.toml",
    "pyproject.toml",
    "README.md",
    "docs",
)
LIMIT = 300
"""Seconds after which tests that hang count as a catch: a reader would notice as well."""


@dataclass(frozen=True, slots=True)
class Mutation:
    """Names a change of code and the tests that must fail with it.

    Attributes:
        name: What goes wrong, in a few words.
        file: From the root.
        code: The code that is replaced; it must be there exactly once.
        becomes: What stands there instead.
        tests: Arguments of pytest.
    """

    name: str
    file: str
    code: str
    becomes: str
    tests: tuple[str, ...]


def read() -> list[Mutation]:
    """Reads all mutations, in the order of their files."""
    return [
        Mutation(name, entry["file"], entry["code"], entry["becomes"], tuple(entry["tests"]))
        for file in sorted(Path(__file__).parent.glob("*.toml"))
        for name, entry in tomllib.loads(file.read_text(encoding="utf-8")).items()
    ]


def verdict(mutation: Mutation, copy: Path) -> str:
    """Applies a mutation to a copy of the tree, runs its tests and restores the copy.

    Returns:
        The test that failed first, or a word in capitals: SURVIVED, or STALE if the code is not there once.
    """
    file = copy / mutation.file
    text = file.read_text(encoding="utf-8") if file.exists() else ""
    if text.count(mutation.code) != 1:
        return f"STALE: the code is in {mutation.file} {text.count(mutation.code)} times"
    file.write_text(text.replace(mutation.code, mutation.becomes), encoding="utf-8")
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-n", "0", "-m", "", *mutation.tests]
    environment = os.environ | {
        "PYTHONPATH": str(copy),
        "OMP_NUM_THREADS": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
        "TEST_LONGEST_WAIT": "10",
    }
    try:
        run = subprocess.run(
            command, cwd=copy, env=environment, capture_output=True, text=True, timeout=LIMIT
        )
    except subprocess.TimeoutExpired:
        return "the tests hang"
    finally:
        file.write_text(text, encoding="utf-8")
    if run.returncode == 0:
        return "SURVIVED"
    failed = re.search(r"^(?:FAILED|ERROR) \S*?([^/\s]+::\S+)", run.stdout, re.MULTILINE)
    if failed is not None:  # a mutation of threads may abort the interpreter behind a test that failed
        return failed[1]
    return f"STALE: pytest ended with {run.returncode}: {run.stdout[-300:]}"


def main(names: list[str]) -> int:
    """Prints the table of mutations; returns 1 if one was not caught."""
    mutations = [each for each in read() if not names or any(name in each.name for name in names)]
    copies: SimpleQueue[Path] = SimpleQueue()
    with tempfile.TemporaryDirectory() as folder:
        workers = os.cpu_count() or 1
        for number in range(workers):
            copies.put(copy_tree(Path(folder) / str(number)))

        def check(mutation: Mutation) -> str:
            copy = copies.get()
            try:
                return verdict(mutation, copy)
            finally:
                copies.put(copy)

        escaped = 0
        with ThreadPoolExecutor(workers) as pool:
            for mutation, result in zip(mutations, pool.map(check, mutations), strict=True):
                escaped += result.startswith(("SURVIVED", "STALE"))
                print(f"{mutation.name:64} {mutation.file:48} {result}", flush=True)
    print(f"{len(mutations)} mutations, {len(mutations) - escaped} caught.")
    return 1 if escaped else 0


def copy_tree(copy: Path) -> Path:
    """Copies what the tests need; the link to the strategies stays a link."""
    copy.mkdir()
    for name in TREE:
        source = ROOT / name
        if source.is_dir():
            ignored = shutil.ignore_patterns("__pycache__", "__snapshots__")
            shutil.copytree(source, copy / name, symlinks=True, ignore=ignored)
        else:
            shutil.copy(source, copy / name)
    return copy


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
