"""Renders conversations with a checkpoint's chat template, as transformers renders them."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from edge_tui.engine.text import template_variables
from edge_tui.engine.text.template_process import (
    CHARACTERS,
    MEMORY,
    SECONDS,
    RenderError,
    TemplateProcess,
)
from edge_tui.errors import EdgeError

if TYPE_CHECKING:
    from edge_tui.engine.checkpoints.source import CheckpointSource
    from edge_tui.engine.port import Message

__all__ = ["NO_TEMPLATE", "ChatError", "prepare", "render", "reserved_names", "thinking_open", "unread"]

NO_TEMPLATE = "The checkpoint has no chat template: the prompt is completed as it stands."
"""Notice for a run that would have used one."""

_TOKENS = tuple(f"{name}_token" for name in ("bos", "eos", "unk", "sep", "pad", "cls", "mask"))
"""Special tokens by the names that transformers has for them."""
_THINKING = re.compile(r"<(think|thinking|reasoning)>\s*\Z")
_REASONS = {
    "time": f"it takes more than {SECONDS:g} s",
    "memory": f"it takes more than {MEMORY / 1e6:.0f} MB of memory",
    "output": f"it writes more than {CHARACTERS:,} characters",
    "recursion": "it is nested too deeply or calls itself too often",
    "crash": "it ended the process that renders it",
}
"""A `RenderError`'s code in words; other codes bring a detail."""
_PROCESS = TemplateProcess()


class ChatError(EdgeError):
    """Refuses a conversation that cannot be rendered, in one sentence.

    Attributes:
        field: The request's field at fault; "" if none is.
    """

    code = "chat_template"

    def __init__(self, message: str, field: str = "chat") -> None:
        super().__init__(message)
        self.field = field


class TemplateProcessError(ChatError):
    """Reports that the process that renders templates does not start: no request is at fault."""

    code = "unavailable"


def render(
    checkpoint: CheckpointSource,
    messages: Sequence[Message],
    variables: Mapping[str, object] | None = None,
    cancelled: Callable[[], bool] = lambda: False,
) -> str | None:
    """Writes a conversation as the checkpoint was trained to read it.

    The template runs in a child process with limits of time and memory. The result holds the special tokens
    it needs, so it is encoded with `special=False`. It ends with the opening of an assistant's turn.

    Args:
        checkpoint: Gives the template and the special tokens it names.
        messages: Turns, oldest first.
        variables: Further variables of the template by name, e.g. `enable_thinking`: JSON values.
        cancelled: Called every few hundredths of a second.

    Returns:
        The prompt; None if the checkpoint has no chat template.

    Raises:
        ChatError: the template is broken, refuses the conversation, writes nothing or breaks a limit; a
            variable has a reserved name or is no JSON value; or the child process cannot be started.
        Cancelled: `cancelled()` said so.
    """
    if checkpoint.chat_template is None:
        return None
    variables = variables or {}
    if taken := sorted(reserved_names(checkpoint) & variables.keys()):
        raise ChatError(
            f"The template variable {taken[0]!r} is set from the conversation or the checkpoint; "
            "leave it out.",
            "template",
        )
    conversation = {
        "messages": [{"role": turn.role, "content": turn.content} for turn in messages],
        "tools": None,
        "documents": None,
        "add_generation_prompt": True,
    }
    names = {**variables, **conversation, **_special_tokens(checkpoint)}
    with _explained(checkpoint):
        text = _PROCESS.render(checkpoint.chat_template, names, cancelled)
    if not text:
        raise _refusal(checkpoint, "it writes nothing")
    return text


def unread(
    checkpoint: CheckpointSource,
    variables: Mapping[str, object],
    cancelled: Callable[[], bool] = lambda: False,
) -> tuple[str, ...]:
    """Returns the variables that the checkpoint's chat template does not read.

    Raises:
        ChatError, Cancelled: see `render`.
    """
    if not variables or checkpoint.chat_template is None:
        return tuple(variables)
    with _explained(checkpoint):
        names = _PROCESS.names(checkpoint.chat_template, cancelled)
    return tuple(name for name in variables if name not in names)


@contextmanager
def _explained(checkpoint: CheckpointSource) -> Iterator[None]:
    """Turns errors of the process into sentences about the checkpoint."""
    try:
        yield
    except RenderError as error:
        reason = " ".join(_REASONS.get(error.code, error.detail).split())
        if error.code == "start":
            raise TemplateProcessError(
                f"The process that renders chat templates does not start ({reason}); "
                "switch the template off to complete raw text.",
                "",
            ) from error
        raise _refusal(checkpoint, reason) from error


def prepare(checkpoint: CheckpointSource) -> None:
    """Starts the child process and compiles the checkpoint's template, in the background."""
    if checkpoint.chat_template is not None:
        _PROCESS.prepare(checkpoint.chat_template)


def reserved_names(checkpoint: CheckpointSource) -> frozenset[str]:
    """Returns the template variables that a request cannot set."""
    return frozenset((*template_variables.OWN, *_TOKENS, *_special_tokens(checkpoint)))


def thinking_open(text: str) -> bool:
    """Tells whether a prompt ends inside an opened `<think>`: what follows is then a thought."""
    return _THINKING.search(text) is not None


def _refusal(checkpoint: CheckpointSource, reason: str) -> ChatError:
    return ChatError(
        f"The chat template of {checkpoint.name} cannot render this conversation ({reason}); "
        "change the turns, or switch the template off to complete raw text."
    )


def _special_tokens(checkpoint: CheckpointSource) -> dict[str, str]:
    """Returns the tokens that a template can name, as transformers' `special_tokens_map` has them."""
    config = checkpoint.tokenizer_config
    found = {key: value for key, value in config.items() if key.endswith("_token")}
    for names in (config.get("model_specific_special_tokens"), config.get("extra_special_tokens")):
        if isinstance(names, dict):
            found |= names
    texts = {
        key: text
        for key, value in found.items()
        if (text := value.get("content") if isinstance(value, dict) else value) and isinstance(text, str)
    }
    unsaid = [name for name in _TOKENS if name not in config and name in (checkpoint.chat_template or "")]
    return {**(checkpoint.class_tokens() if unsaid else {}), **texts}
