"""Copies and saves the answer, without an app."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from edge_tui.tui.clipboard import Clipboard
from edge_tui.tui.workbench.answer_controller import AnswerController

if TYPE_CHECKING:
    from pathlib import Path

    import pytest


class _Parts:
    """Holds an answer and takes what the controller does with it."""

    def __init__(self, answer: str, works: Any = "yes") -> None:
        self.said: list[tuple[str, str]] = []
        self.copied: list[str] = []
        view: Any = SimpleNamespace(answer=lambda: answer, say=lambda *parts: self.said.append(parts))
        services: Any = SimpleNamespace(
            clipboard_support=lambda: Clipboard(works, "tmux keeps it to itself."),
            copy_to_clipboard=self.copied.append,
        )
        self.controller = AnswerController(view, lambda: services)


def test_an_answer_is_copied_and_counted() -> None:
    parts = _Parts("Forty-two.")
    parts.controller.copy()
    assert parts.copied == ["Forty-two."]
    assert parts.said == [("Copied 10 characters.", "good")]


def test_nothing_is_sent_where_no_clipboard_takes_it() -> None:
    parts = _Parts("Forty-two.", "no")
    parts.controller.copy()
    assert parts.copied == []
    assert parts.said == [("tmux keeps it to itself. Y writes the answer to a file.", "warning")]


def test_no_answer_is_neither_copied_nor_saved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    parts = _Parts("")
    parts.controller.copy()
    parts.controller.save()
    assert (parts.copied, parts.said, list(tmp_path.iterdir())) == ([], [], [])


def test_an_answer_that_cannot_be_written_is_said_to_be(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    parts = _Parts("Forty-two.")
    parts.controller.save()
    [(sentence, kind)] = parts.said
    assert kind == "error"
    assert sentence.startswith("The answer could not be written: ")
