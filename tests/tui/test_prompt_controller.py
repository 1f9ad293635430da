"""Prompts that are recalled, edited and loaded, without a screen."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
from textual.app import SuspendNotSupported

from edge_tui.history.schema import HistoryError
from edge_tui.tui import editor
from edge_tui.tui.workbench.prompt_controller import PromptController
from tests.tui.parts import Field, View


class Stored:
    """A history of prompts."""

    def __init__(self, *prompts: str, problem: str = "") -> None:
        self._prompts, self._problem = prompts, problem

    def prompts(self, query: str, most: int) -> list[str]:
        if self._problem:
            raise HistoryError(self._problem)
        return [prompt for prompt in self._prompts if query in prompt][:most]


def controller(text: str = "", stored: Any = None) -> tuple[PromptController, Field, View]:
    field, view = Field(text), View()
    return PromptController(field, view, lambda: stored), field, view


def test_prompts_of_this_session_and_of_earlier_ones_come_back_and_the_draft_after_them() -> None:
    prompts, field, _ = controller("draft", Stored("b", "a"))
    prompts.remember("c")
    prompts.remember("")
    seen = []
    for step in (-1, -1, -1, -1, 1, 1, 1, 1):
        prompts.recall(step)
        seen.append(field.text)
    assert seen == ["c", "b", "a", "a", "b", "c", "draft", "draft"]


def test_a_history_that_cannot_be_read_is_a_sentence() -> None:
    prompts, _, view = controller(stored=Stored(problem="It is locked."))
    assert prompts.search("", 3) == []
    assert view.said == ["It is locked."]
    assert controller()[0].search("", 3) == []


def test_a_file_is_loaded_or_refused(tmp_path: Path) -> None:
    prompts, field, view = controller("before")
    (tmp_path / "note.txt").write_bytes(b"one\r\ntwo\n")
    (tmp_path / "binary").write_bytes(b"\xff")
    prompts.load(None)
    prompts.load(tmp_path / "binary")
    assert (field.text, view.kind) == ("before", "error")
    prompts.load(tmp_path / "note.txt")
    assert (field.text, field.focused, view.kind) == ("one\ntwo\n", 1, "good")


def test_the_editor_changes_the_prompt_or_leaves_it(monkeypatch: pytest.MonkeyPatch) -> None:
    prompts, field, view = controller("abc")
    monkeypatch.setenv("EDITOR", "ed")
    monkeypatch.setattr(editor, "edit", str.upper)
    prompts.edit(nullcontext)
    assert (field.text, field.focused) == ("ABC", 1)
    prompts.edit(nullcontext)
    assert field.focused == 1, "nothing was changed"

    def refuse() -> Any:
        raise SuspendNotSupported

    prompts.edit(refuse)
    assert "cannot be lent" in view.said[-1]
    monkeypatch.delenv("EDITOR")
    monkeypatch.delenv("VISUAL", raising=False)
    prompts.edit(nullcontext)
    assert "No editor" in view.said[-1]
    assert field.text == "ABC"
