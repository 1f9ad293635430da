"""Does what docs/adding-a-family.md says, word for word: describe, compare, break."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest

from edge_tui.engine.models.architectures import families
from edge_tui.engine.models.family import Family
from tests.engine.models import references, test_golden, test_mutations
from tests.engine.models.test_defaults import check_defaults

PAGE = Path(__file__).parents[3] / "docs" / "adding-a-family.md"


def blocks(language: str) -> list[str]:
    """The page's blocks of code in one language."""
    return re.findall(rf"```{language}\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)


@pytest.fixture
def added(monkeypatch: pytest.MonkeyPatch) -> tuple[str, str]:
    """Adds what the page adds, and returns the names of the family and of the mutation."""
    (description,) = blocks("toml")
    case, mutation = (eval("{" + block + "}", vars(test_mutations)) for block in blocks("python"))
    ((family, own),) = case.items()
    ((mistake, made),) = mutation.items()
    assert f"families/{family}.toml" in PAGE.read_text(encoding="utf-8")
    monkeypatch.setitem(families(), family, Family(**tomllib.loads(description)))
    monkeypatch.setitem(references.FAMILY_CASES, family, (family, own))
    monkeypatch.setitem(test_mutations.MUTATIONS, mistake, made)
    return family, mistake


def test_the_page_adds_a_family(added: tuple[str, str], tmp_path: Path) -> None:
    family, _ = added
    check_defaults(family)
    pair = test_golden.make_pair(family, tmp_path)
    checks: list[Any] = [
        test_golden.test_one_call,
        test_golden.test_prefill_then_steps,
        test_golden.test_ragged_rows,
        test_golden.test_truncate_unevenly,
        test_golden.test_reorder,
        test_golden.test_fork,
        test_golden.test_facts,
    ]
    for check in checks:
        check(pair)


def test_the_pages_mistake_is_seen(
    added: tuple[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    test_mutations.test_mistakes_are_seen(added[1], tmp_path, monkeypatch)
