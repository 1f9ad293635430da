from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest
from textual.color import Color

from edge_tui.config import resources
from edge_tui.config.settings import Settings
from edge_tui.tui.app import EdgeApp
from edge_tui.tui.theme import DEFAULT, LADDER, ThemeError, load, read
from tests.tui.engines import PictureEngine
from tests.tui.rendered import until, was_said

GOOD = (resources.themes() / "dark.toml").read_text()


def test_the_built_in_ones_load() -> None:
    found = load([resources.themes()])
    assert list(found.themes) == ["dark", "light", "high-contrast", "colour-blind", "ansi-16"]
    assert found.notices == ()


def luminance(color: Color) -> float:
    def linear(channel: float) -> float:
        return channel / 12.92 if channel <= 0.04045 else ((channel + 0.055) / 1.055) ** 2.4

    red, green, blue = (linear(each / 255) for each in (color.r, color.g, color.b))
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


@pytest.mark.parametrize("name", ["dark", "light", "high-contrast", "colour-blind"])
def test_every_step_of_the_ladder_can_be_read(name: str) -> None:
    """WCAG AA (4.5:1) against the background; AAA (7:1) in the theme that promises contrast."""
    theme = load([resources.themes()]).themes[name]
    back = luminance(Color.parse(theme.background or ""))
    for step in range(LADDER):
        front = luminance(Color.parse(theme.variables[f"token-{step}"]))
        ratio = (max(front, back) + 0.05) / (min(front, back) + 0.05)
        assert ratio >= (7 if name == "high-contrast" else 4.5), f"{name} step {step}: {ratio:.1f}"


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("dark = [", "broken.toml"),
        (GOOD.replace('"#f25c78"', '"reddish"'), "tokens.ladder[0]"),
        (GOOD.replace("primary =", "primery ="), "primery"),
        ("[colours]\nprimary = '#000000'\n[tokens]\nladder = []", "8 colours"),
        ("", "[colours]"),
        (GOOD.replace("[tokens]", "[variables]\nx = 3\n[tokens]"), "variables.x"),
        (GOOD.replace('primary = "#7d9fd8"', "primary = 7"), "colours.primary"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, text: str, named: str) -> None:
    path = tmp_path / "broken.toml"
    path.write_text(text)
    with pytest.raises(ThemeError) as caught:
        read(path)
    assert named in str(caught.value)
    assert "broken.toml" in str(caught.value)


def test_a_broken_file_leaves_the_default(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text("no")
    (tmp_path / "Bad Name.toml").write_text(GOOD)
    found = load([tmp_path])
    assert list(found.themes) == [DEFAULT]
    assert len(found.notices) == 2


def test_the_users_file_replaces_a_built_in_one(tmp_path: Path) -> None:
    (tmp_path / "dark.toml").write_text(GOOD.replace('title = "Dark"', 'title = "Mine"'))
    assert load([resources.themes(), tmp_path]).titles["dark"] == "Mine"


async def test_a_theme_of_ones_own_takes_effect_when_it_is_saved(tmp_path: Path) -> None:
    source = (resources.themes() / "dark.toml").read_text()
    settings = replace(Settings(), ui=replace(Settings().ui, theme="dark"))
    app = EdgeApp(PictureEngine, settings, theme_folders=[resources.themes(), tmp_path])
    async with app.run_test(size=(80, 24)) as pilot:
        await pilot.pause(0.1)
        (tmp_path / "mine.toml").write_text(source)
        await until(pilot, lambda: "mine" in app.theme_switch.themes.themes)
        app.theme_switch.choose("mine")
        (tmp_path / "mine.toml").write_text(re.sub(r'background = "#\w+"', 'background = "#123456"', source))
        await until(pilot, lambda: app.workbench.background_colors[1].hex == "#123456")
        (tmp_path / "mine.toml").write_text("[colours")
        await until(pilot, lambda: was_said("mine.toml"))
        assert app.theme == "mine"
        assert app.workbench.background_colors[1].hex == "#123456"
        (tmp_path / "mine.toml").unlink()
        await until(pilot, lambda: app.theme == "dark")
