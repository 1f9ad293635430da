"""Reads a request's prompt into token ids, through the chat template where there is one."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from edge_tui.engine.checkpoints.checkpoint import CheckpointError
from edge_tui.engine.port import Message
from edge_tui.engine.text import chat_template
from edge_tui.engine.text.control_tokens import texts
from edge_tui.engine.text.token_roles import cut, marks_of, roles_of
from edge_tui.errors import EmptyPrompt, RequestError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from edge_tui.engine.checkpoints.source import CheckpointSource
    from edge_tui.engine.models.loader import LoadedModel
    from edge_tui.engine.port import Request
    from edge_tui.engine.text.control_tokens import ControlTokenMask
    from edge_tui.engine.text.token_roles import Part
    from edge_tui.engine.text.tokenizer import Tokenizer

_TAIL = 8
"""Tokens at the end of a prompt among which its template may open a thought."""


@dataclass(frozen=True, slots=True)
class Prompt:
    """Holds a prompt as the model reads it.

    Attributes:
        ids: Its tokens, at least one.
        notices: Sentences the user should read about how it was read.
        thinking: True where the chat template has opened a thought.
        control_tokens: Names in what users wrote that are control tokens.
        roles: Role of the turn that each token is of, "" for one that the template or the tokenizer wrote;
            empty where nobody asked for the prompt's tokens, or where it is not known.
    """

    ids: list[int]
    notices: tuple[str, ...] = ()
    thinking: bool = False
    control_tokens: tuple[str, ...] = ()
    roles: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class OtherPrompts:
    """Makes the prompts of streams that read something else than the user's: `Decoder.prompts` gets one.

    Attributes:
        ids: Its tokens.
        request: The request that they were read from.
        main: The main model.
        cancelled: Tells whether the run is to stop.
    """

    ids: Sequence[int]
    request: Request
    main: LoadedModel
    cancelled: Callable[[], bool]

    def with_system(self, text: str) -> OtherPrompts:
        """Puts a system prompt in place of the present one; where there is no chat template, `text` alone."""
        if not _is_chat(self.request, self.main):
            return self.with_text(text)
        return self._read(replace(self.request, system=text))

    def with_text(self, text: str) -> OtherPrompts:
        """Puts another text in place of what the user wrote last.

        Raises:
            EmptyPrompt: there is nothing left to decode from.
        """
        turns = self.request.prompt
        if isinstance(turns, str):
            return self._read(replace(self.request, prompt=text, ids=()))
        last = replace(turns[-1], content=text)
        return self._read(replace(self.request, prompt=(*turns[:-1], last), ids=()))

    def last(self, count: int) -> OtherPrompts:
        """Keeps the last ids alone."""
        return replace(self, ids=self.ids[-count:])

    def _read(self, request: Request) -> OtherPrompts:
        ids = read_prompt(request, self.main, self.cancelled).ids
        return replace(self, ids=ids, request=request)


def _is_chat(request: Request, main: LoadedModel) -> bool:
    """Tells whether the model's chat template writes the prompt."""
    return not request.ids and request.chat is not False and main.checkpoint.chat_template is not None


def read_prompt(request: Request, main: LoadedModel, cancelled: Callable[[], bool]) -> Prompt:
    """Reads a request's prompt into ids.

    White space is a prompt like any other. An empty one is the token that begins a sequence, where the model
    has one. A control token's name in it is text, unless the request allows control tokens.

    Raises:
        RequestError: there is nothing to decode from, or a control token's name that the tokenizer cannot
            take as text.
        ChatError: the chat template cannot render it.
        Cancelled: `cancelled()` said so while the template was rendered.
    """
    tokenizer = main.tokenizer
    if request.ids:
        return _prompt(tokenizer, list(request.ids), (), request, roles=("user",) * len(request.ids))
    turns = request.prompt
    if _is_chat(request, main):
        return _conversation(request, main, cancelled)
    parts = _raw_parts(turns)
    text = "".join(part for _, part in parts)
    no_place = "Outside a chat template there is no place for"
    notices = {
        "This model has no chat template: the prompt is completed as raw text.": request.chat,
        f"{no_place} the system prompt: it is left out.": request.system,
        f"{no_place} template variables: {', '.join(request.template)} is left out.": request.template,
    }
    try:
        ids = tokenizer.encode(text, control=request.control_tokens)
    except CheckpointError as error:
        raise RequestError(str(error), "prompt") from error
    if not ids and tokenizer.bos_id is not None:
        ids = [tokenizer.bos_id]
    if not ids:
        raise EmptyPrompt(
            f"The prompt is empty, and {main.model.info.name} has no token to begin a text with:"
            " type something to decode.",
            "prompt",
        )
    said = tuple(notice for notice, cause in notices.items() if cause)
    roles = _roles(tokenizer, ids, parts, control=request.control_tokens) if request.prompt_logps else ()
    return _prompt(tokenizer, ids, said, request, tokenizer.control_in([text]), roles)


def _raw_parts(turns: str | Sequence[Message]) -> list[Part]:
    """Lists what is read where no template writes between the turns."""
    if isinstance(turns, str):
        return [("user", turns)]
    return [part for turn in turns for part in (("", "\n"), (turn.role, turn.content))][1:]


def _roles(
    tokenizer: Tokenizer,
    ids: list[int],
    parts: Sequence[Part],
    masked: ControlTokenMask | None = None,
    control: bool = True,
) -> tuple[str, ...]:
    """Finds the role of each token; what a tokenizer adds at the ends of a text has none."""
    texts, read, spans = tokenizer.spans([text for _, text in parts], masked, control)
    found = roles_of([(role, text) for (role, _), text in zip(parts, texts, strict=True)], spans)
    for first in range(len(ids) - len(read) + 1):
        stop = first + len(read)
        if ids[first:stop] == read:
            return ("",) * first + tuple(found) + ("",) * (len(ids) - stop)
    return ()


def _conversation(request: Request, main: LoadedModel, cancelled: Callable[[], bool]) -> Prompt:
    """Renders the turns with the chat template, and reads the text into ids."""
    tokenizer, checkpoint = main.tokenizer, main.checkpoint
    turns = request.prompt
    messages = [Message("user", turns)] if isinstance(turns, str) else list(turns)
    if not any(turn.content for turn in messages):
        raise EmptyPrompt(
            "The message is empty: type something, or switch the chat template off to decode from nothing.",
            "prompt",
        )
    if request.system:
        messages.insert(0, Message("system", request.system))
    variables = request.template
    written = list(texts([[turn.content for turn in messages], variables]))
    found = tokenizer.control_in(written)
    masked = None
    try:
        if found and not request.control_tokens:
            masked = tokenizer.mask(written, checkpoint.chat_template or "")
            messages = [Message(turn.role, masked.hide(turn.content)) for turn in messages]
            variables = masked.hide(variables)
        rendered = chat_template.render(checkpoint, messages, variables=variables, cancelled=cancelled) or ""
        unread = chat_template.unread(checkpoint, variables, cancelled)
        notices = (f"The chat template does not read {', '.join(unread)}: no effect.",) if unread else ()
        ids = (
            tokenizer.encode_rendered(rendered, masked)
            if masked
            else tokenizer.encode(rendered, special=False)
        )
    except CheckpointError as error:
        raise RequestError(str(error), "prompt") from error
    if not ids:
        raise RequestError(
            f"The chat template of {checkpoint.name} wrote nothing: switch it off to complete raw text.",
            "prompt",
        )
    roles: tuple[str, ...] = ()
    if request.prompt_logps:
        parts = _conversation_parts(rendered, messages, checkpoint, variables, cancelled)
        roles = _roles(tokenizer, ids, parts, masked) if parts else ()
    return _prompt(tokenizer, ids, notices, request, found, roles)


def _conversation_parts(
    rendered: str,
    messages: list[Message],
    checkpoint: CheckpointSource,
    variables: Mapping[str, object],
    cancelled: Callable[[], bool],
) -> list[Part] | None:
    """Cuts a rendered conversation into turns and template; None where the template makes that impossible."""
    marks = marks_of(messages, checkpoint.chat_template or "")
    marked = [Message(turn.role, mark) for turn, mark in zip(messages, marks, strict=True)]
    try:
        fixed = chat_template.render(checkpoint, marked, variables=variables, cancelled=cancelled) or ""
    except chat_template.ChatError:  # it refuses such texts
        return None
    return cut(rendered, fixed, dict(zip(marks, messages, strict=True)))


def _prompt(
    tokenizer: Tokenizer,
    ids: list[int],
    notices: tuple[str, ...],
    request: Request,
    found: Mapping[str, int] | None = None,
    roles: tuple[str, ...] = (),
) -> Prompt:
    """Builds a prompt; `found` counts the names of control tokens that users wrote in it."""
    found = found or {}
    return Prompt(
        ids,
        notices + _control_token_notice(found, request),
        chat_template.thinking_open("".join(tokenizer.token_strings(ids[-_TAIL:]))),
        tuple(found) if request.control_tokens else (),
        roles,
    )


def _control_token_notice(found: Mapping[str, int], request: Request) -> tuple[str, ...]:
    """Says which control tokens' names stand in the prompt, and how they are read."""
    if not found:
        return ()
    names = ", ".join(name if count == 1 else f"{name} ({count} times)" for name, count in found.items())
    if request.control_tokens:
        return (f"The prompt holds control tokens, which the model obeys: {names}.",)
    return (f"The prompt is read as text, control tokens in it too: {names}; control_tokens allows them.",)
