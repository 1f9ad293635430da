"""Puts the screens of the app on one sheet, `docs/screens.svg`: part of `make screenshots`.

The pictures are those that `tests/tui/test_screens.py` and `test_kept_screens.py` hold the app to, so the
sheet shows what was tested.
"""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parent.parent
PICTURES = ROOT / "tests" / "tui" / "__snapshots__"
SHEET = ROOT / "docs" / "screens.svg"
SHOWN = (
    *(
        f"test_screens/test_every_screen[{name}]"
        for name in (
            "first start", "token", "beams", "parameter", "strategies", "models", "settings", "themes",
            "problem", "help",
        )
    ),
    "test_screens/test_workbench[80x24-light][token]",
    "test_screens/test_workbench[80x24-no colour][token]",
    *(
        f"test_kept_screens/test_every_kept_screen[{name}]"
        for name in (
            "conversation", "history", "comparison", "interrupted", "export", "prompts", "files", "presets",
            "save preset",
        )
    ),
)  # fmt: skip
"""The pictures, row by row."""
COLUMNS = 3
GAP = 40
"""Between pictures, in the units of their own view boxes."""


def sheet() -> str:
    """Draws the sheet as SVG; its width follows the page that shows it."""
    drawn: list[str] = []
    width = height = 0.0
    for number, name in enumerate(SHOWN):
        text = (PICTURES / f"{name}.svg").read_text(encoding="utf-8")
        found = re.search(r'viewBox="0 0 ([\d.]+) ([\d.]+)"', text)
        if found is None:
            raise ValueError(f"{name} has no size")
        width, height = float(found[1]), float(found[2])
        y, x = divmod(number, COLUMNS)
        place = f'x="{x * (width + GAP):.0f}" y="{y * (height + GAP):.0f}" width="{width}" height="{height}"'
        # Each picture's style sheet holds for the whole document: names of its own keep them apart.
        own = re.sub(r"\bterminal-", f"s{number}-", text)
        own = re.sub(r"@font-face \{.*?\}", "", own, flags=re.DOTALL) if number else own
        drawn.append(own.replace('<svg class="rich-terminal"', f"<svg {place}", 1).strip())
    rows = -(-len(SHOWN) // COLUMNS)
    box = f"0 0 {COLUMNS * (width + GAP) - GAP:.0f} {rows * (height + GAP) - GAP:.0f}"
    return "\n".join([f'<svg viewBox="{box}" xmlns="http://www.w3.org/2000/svg">', *drawn, "</svg>", ""])


if __name__ == "__main__":
    SHEET.write_text(sheet(), encoding="utf-8")
