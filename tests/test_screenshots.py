"""The pictures of the README show the app as it is."""

from __future__ import annotations

import html
import re
from collections import defaultdict
from pathlib import Path

import pytest

from tools.take_screenshot import DOCS, PICTURES, settings_of, take

TEXT = re.compile(r'<text class="[^"]*" x="([\d.]+)" y="([\d.]+)"[^>]*>(.*?)</text>')


def fixed_text(picture: Path) -> list[str]:
    """Reads what a machine does not change: the first line, every panel's title, and the line of keys."""
    rows: dict[float, list[tuple[float, str]]] = defaultdict(list)
    for x, y, text in TEXT.findall(picture.read_text(encoding="utf-8")):
        rows[float(y)].append((float(x), html.unescape(text).replace("\xa0", " ")))
    lines = ["".join(text for _, text in sorted(rows[y])) for y in sorted(rows)]
    titles = [title for line in lines for title in re.findall(r"╭─ (.+?) ─", line)]
    return [lines[0], *titles, lines[-1]]


@pytest.mark.parametrize(
    "name", [pytest.param(each, marks=() if each == "beams" else pytest.mark.proof) for each in PICTURES]
)
async def test_a_picture_is_of_this_app(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    fresh = fixed_text(await take(name, settings_of(name), PICTURES[name][2], tmp_path))
    assert len(fresh) > 5
    assert fixed_text(DOCS / f"{name}.svg") == fresh, "take the pictures anew: make screenshots"
