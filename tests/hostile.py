"""Text from outside at its worst, and the places where a user's own files hold it."""

from __future__ import annotations

import re
from pathlib import Path

TEXT = "\x1b]52;c;ZXZpbA==\x07\x9b31m\x9d0;evil\x9c\u202eevil\u2066\x7f\x08[red][/][@click=app.quit]x[/]"
"""Sets a clipboard, a colour and a title, turns the direction around, deletes, and is markup."""
ONE_LINE = TEXT + "\r\x85\u2028"

_CONTROLS = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")

STRATEGY = f"""
from edge_tui.decoders.base import Filter, Param, TextParam

class Evil(Filter):
    name = "evil"
    title = {ONE_LINE!r}
    summary = {ONE_LINE!r}
    rank = 99
    params = (
        Param("evil", default=0.5, low=0.0, high=1.0, step=0.1, neutral=1.0, help={ONE_LINE!r}),
        TextParam("evils", {ONE_LINE!r}, {ONE_LINE!r}, many=True, label={ONE_LINE!r}),
    )

    def apply(self, z, p, s, rng):
        return z
"""


def controls(text: str) -> list[str]:
    """The control characters of a text, other than the end of a line."""
    return _CONTROLS.findall(text)


def quoted(text: str) -> str:
    """A text as a TOML string."""
    return '"' + "".join(c if c.isalnum() else f"\\u{ord(c):04x}" for c in text) + '"'


def write_files(folder: Path) -> None:
    """Fills a configuration folder with a strategy, a preset, a theme and settings that hold the text."""
    strategies = folder / "strategies"
    for each in (
        strategies,
        folder / "presets",
        folder / "themes",
        folder / "models" / "[red]\x1b[31m\u202e",
    ):
        each.mkdir(parents=True)
    (strategies / "evil.py").write_text(STRATEGY)
    (strategies / "broken\x1b[31m.py").write_text(f"raise ValueError({ONE_LINE!r})")
    text = quoted(TEXT)
    (folder / "presets" / "evil.toml").write_text(
        f"title = {text}\nsummary = {text}\nstrategy = {text}\nsystem = {text}\nstop = [{text}]\n"
        f"prompt = {text}\nparameters.{text} = {text}\n"
    )
    (folder / "presets" / "bad.toml").write_text(f"{text} = 1\n")
    ladder = ", ".join(['"#808080"'] * 8)
    (folder / "themes" / "evil.toml").write_text(
        f'title = {text}\n[colours]\nprimary = "#ff0000"\n[tokens]\nladder = [{ladder}]\n'
    )
    (folder / "themes" / "bad.toml").write_text(f"[colours]\n{text} = 1\n[tokens]\n")
    (folder / "models" / "[red]\x1b[31m\u202e" / "config.json").write_text("{")
    (folder / "config.toml").write_text(
        f"decoder_folders = [{quoted(str(strategies))}]\nsystem = {text}\nstop = [{text}]\nmode = {text}\n"
        f"{text} = 1\n[models]\nfolders = [{quoted(str(folder / 'models'))}]\n[keys]\n{text} = {text}\n"
        f"[parameters]\n{text} = {text}\n"
    )
