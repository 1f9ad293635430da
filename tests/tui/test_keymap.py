from __future__ import annotations

from typing import Any

import pytest

from edge_tui.tui.keymap import catalog, parse_keys, resolve
from edge_tui.tui.screens.help import HelpScreen
from edge_tui.tui.screens.models import ModelsScreen
from tests.tui.rendered import is_open, notices, until
from tests.tui.test_workbench import ended

BOUND = catalog()


@pytest.mark.parametrize(
    ("text", "keys"),
    [
        ("f5", ["f5"]),
        ("^r", ["ctrl+r"]),
        ("ctrl+j, f5", ["ctrl+j", "f5"]),
        ("?", ["question_mark"]),
        ("Q", ["Q"]),
        (",", ["comma"]),
        ("shift+left", ["shift+left"]),
    ],
)
def test_keys_as_people_write_them(text: str, keys: list[str]) -> None:
    assert parse_keys(text) == (keys, "")


def test_every_action_has_a_name_of_its_own() -> None:
    names = [each.name for each in BOUND]
    assert len(names) == len(set(names))
    assert {"run", "digit.3", "cursor_left", "take", "parameter_down(10)", "load('amateur')"} <= set(names)


def test_every_action_can_have_another_key() -> None:
    for each in BOUND:
        keymap = resolve({each.name: "f20"}, BOUND)
        assert (keymap.keys, keymap.notices) == ({each.id: "f20"}, ())


def test_two_may_swap() -> None:
    keymap = resolve({"rerun": "g", "again": "r"}, BOUND)
    assert keymap.keys == {"main.rerun": "g", "main.again": "r"}
    assert keymap.notices == ()


def test_a_conflict_names_the_other_and_keeps_both_as_they_were() -> None:
    keymap = resolve({"rerun": "g"}, BOUND)
    assert keymap.keys == {}
    assert keymap.notices == (
        "keys.rerun: g is the key of again (Workbench); give that another one first. rerun keeps r.",
    )
    # The one who would have made room is refused himself, and so is who relied on him.
    chain = resolve({"rerun": "g", "again": "s"}, BOUND)
    assert chain.keys == {}
    assert len(chain.notices) == 2


def test_only_what_is_heard_together_is_in_conflict() -> None:
    assert resolve({"device": "ctrl+e"}, BOUND).notices == ()
    assert "up is the key of list.move(-1)" in resolve({"device": "up"}, BOUND).notices[0]
    assert resolve({"unload": "e"}, BOUND).notices == ()  # models are another screen
    assert "run" in resolve({"take": "ctrl+j"}, BOUND).notices[0]


def test_digits_are_nine_keys() -> None:
    keymap = resolve({"digit": "f11,f12,f13,f14,f15,f16,f17,f18,f19", "help": "?"}, BOUND)
    assert keymap.notices == ()
    assert keymap.keys["main.digit.9"] == "f19"
    assert "nine keys" in resolve({"digit": "1,2"}, BOUND).notices[0]


def test_what_cannot_be_is_said() -> None:
    said = resolve({"rnu": "f5", "run": "ctrl+", "xyzzy": "q"}, BOUND).notices
    assert 'did you mean "run"?' in said[0]
    assert "'ctrl+' is no key" in said[1]
    assert "? lists them" in said[2]


async def test_the_app_hears_the_users_keys(picture: Any) -> None:
    from dataclasses import replace

    app = picture()
    app.settings = replace(
        app.settings, keys={"focus_prompt": "f6", "cursor_left": "semicolon", "rerun": "g"}
    )
    async with app.run_test(size=(80, 24)) as pilot:
        bench = app.workbench
        await until(pilot, lambda: any("keys.rerun: g is the key of again" in each for each in notices(app)))
        bench.prompt.insert("Hello")
        await pilot.press("ctrl+j")
        await until(pilot, lambda: bench.pane.transcript is not None and ended(bench))
        last = len(bench.pane.transcript) - 1
        await pilot.press("semicolon", "semicolon")
        assert bench.pane.cursor == last - 1
        await pilot.press("f6")
        assert app.focused is bench.prompt


async def test_help_begins_with_the_keys_of_where_one_is(picture: Any) -> None:
    from dataclasses import replace

    def headings(screen: Any) -> list[str]:
        text = str(screen.query_one("#keys").render())
        return [line.removeprefix("Here: ") for line in text.splitlines() if line.startswith("Here: ")]

    app = picture()
    app.settings = replace(app.settings, keys={"rerun": "f7"})
    async with app.run_test(size=(80, 24)) as pilot:
        await pilot.pause(0.1)
        app.workbench.pane.focus()
        await pilot.press("question_mark")
        await until(pilot, lambda: is_open(app, HelpScreen))
        found = headings(app.screen)
        assert [name.partition(" (")[0] for name in found] == ["Token pane", "Workbench", "Everywhere"]
        assert "f7           rerun" in str(app.screen.query_one("#keys").render())
        await pilot.press("escape", "e", "question_mark")
        await until(pilot, lambda: is_open(app, HelpScreen))
        assert headings(app.screen)[0].startswith("Parameters")
        await pilot.press("escape", "m")
        await until(pilot, lambda: is_open(app, ModelsScreen))
        await pilot.press("f1")
        await until(pilot, lambda: is_open(app, HelpScreen))
        assert headings(app.screen) == ["Models", "Lists (typing filters)", "Everywhere"]
