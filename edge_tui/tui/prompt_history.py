"""Steps back and forth among earlier prompts; the draft stays at the end."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


class PromptHistory:
    """Holds the prompts, newest first, each once.

    Args:
        load: Returns the prompts of earlier sessions, newest first; asked for when somebody first goes back.
    """

    def __init__(self, load: Callable[[], list[str]]) -> None:
        self._load = load
        self._loaded = False
        self._prompts: list[str] = []
        self._at = -1
        self._draft = ""

    def add(self, prompt: str) -> None:
        """Adds a prompt that was run."""
        if prompt in self._prompts:
            self._prompts.remove(prompt)
        self._prompts.insert(0, prompt)
        self._at = -1

    def older(self, present: str) -> str | None:
        """Returns the prompt before; None if there is none.

        Args:
            present: Text in the field now; a draft is kept.
        """
        if not self._loaded:
            self._loaded = True
            known = set(self._prompts)
            self._prompts += [prompt for prompt in self._load() if prompt not in known]
        if self._at < 0:
            self._draft = present
        step = self._at + 1
        while step < len(self._prompts) and self._prompts[step] == present:
            step += 1
        if step >= len(self._prompts):
            return None
        self._at = step
        return self._prompts[step]

    def newer(self) -> str | None:
        """Returns the prompt after, at last the draft; None at the draft."""
        if self._at < 0:
            return None
        self._at -= 1
        return self._draft if self._at < 0 else self._prompts[self._at]
