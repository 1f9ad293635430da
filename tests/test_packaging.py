"""Commands, links, trees and versions of the documents exist."""

from __future__ import annotations

import re
import shlex
import subprocess
from itertools import chain
from pathlib import Path

import pytest
import tomli
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from edge_tui import __version__
from edge_tui.cli.parser import make_parser

ROOT = Path(__file__).parent.parent
DOCUMENTS = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md"))]
ELSEWHERE = {"curl", "docker", "mkdir", "mv", "pip", "python", "ssh"}
"""Commands of the documents that are not ours to check."""


def commands(text: str) -> list[str]:
    blocks = re.findall(r"^```sh\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    return [line.partition("  #")[0].strip() for block in blocks for line in block.splitlines()]


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_commands_of_the_documents_exist(document: Path) -> None:
    for line in commands(document.read_text()):
        words = shlex.split(line.rpartition("|")[2])
        while re.match(r"[A-Z_]+=", words[0]):  # variables of that one command
            words = words[1:]
        if words[0] == "make":
            assert re.search(rf"^{words[1]}:", (ROOT / "Makefile").read_text(), re.MULTILINE), line
        elif words[0] == "edge-tui":
            make_parser().parse_args(words[1:])  # raises for what does not exist
        elif words[0] not in ELSEWHERE:
            pytest.fail(f"who checks {line!r}?")


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(document: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", document.read_text()):
        path = target.partition("#")[0]
        assert target.startswith("https://") or (document.parent / path).exists(), target


def test_the_tree_and_the_files_of_architecture_exist() -> None:
    text = (ROOT / "ARCHITECTURE.md").read_text()
    folders = [ROOT]
    for line in text.partition("## The tree")[2].split("```")[1].strip("\n").splitlines():
        depth = (len(line) - len(line.lstrip())) // 4
        for name in re.split(r"\s{2,}", line.strip())[0].split():
            path = folders[depth] / name
            assert path.exists(), line
            folders[depth + 1 :] = [path]
    for name in re.findall(r"`([\w/]+(?:\.py|/))`", text):
        assert any((base / name).exists() for base in (ROOT, ROOT / "edge_tui")), name


def test_the_functions_that_architecture_names_are_where_it_says() -> None:
    text = (ROOT / "ARCHITECTURE.md").read_text().partition("## To change X")[2]
    named = re.findall(r"`([\w/]+\.py)`: `([\w.]+)`", text)
    assert len(named) > 15
    for file, names in named:
        code = (ROOT / "edge_tui" / file).read_text()
        for name in names.split("."):
            assert re.search(rf"^ *(?:def|class) {name}\b", code, re.MULTILINE), (file, name)


def test_the_example_is_a_strategy_of_ours() -> None:
    code = (ROOT / "CONTRIBUTING.md").read_text().partition("```python\n")[2].partition("```")[0]
    assert code == (ROOT / "decoders" / "top_a.py").read_text()


def test_version_is_in_the_changelog() -> None:
    assert re.search(
        rf"^## \[{re.escape(__version__)}\] - ", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE
    )


def test_every_dependency_is_pinned_within_its_bounds() -> None:
    project = tomli.loads((ROOT / "pyproject.toml").read_text())["project"]
    pins = dict(line.split("==") for line in (ROOT / "constraints.txt").read_text().split())
    pins = {canonicalize_name(name): version for name, version in pins.items()}
    lines = [*project["dependencies"], *chain.from_iterable(project["optional-dependencies"].values())]
    for requirement in map(Requirement, lines):
        if requirement.name != project["name"]:  # one of its own extras
            pinned = pins[canonicalize_name(requirement.name)]
            assert requirement.specifier.contains(pinned, prereleases=True), requirement


def test_make_says_what_there_is_and_asks_for_the_right_python(tmp_path: Path) -> None:
    shown = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, timeout=30).stdout
    for target in ("run", "test", "check", "proof", "bench-tui"):
        assert re.search(rf"^{target}\s+\S", shown, re.MULTILINE)
    old = tmp_path / "bin"
    old.mkdir()
    for name in ("python3", "python3.11", "python3.12", "python3.13", "python3.14"):
        (old / name).write_text("#!/bin/sh\nexit 1\n")
        (old / name).chmod(0o755)
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        (tmp_path / name).write_text((ROOT / name).read_text())
    done = subprocess.run(
        ["make", "run"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=30,
        env={"PATH": f"{old}:/usr/bin:/bin", "HOME": str(tmp_path)},
    )
    assert done.returncode != 0
    assert "Python 3.11 or newer" in done.stderr
    assert not (tmp_path / ".venv").exists()
