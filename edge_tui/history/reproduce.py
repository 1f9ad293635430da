"""Writes the command that makes a stored run again on the same machine, or the reason why none does."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from typing import TYPE_CHECKING, get_args

from edge_tui import decoders
from edge_tui.engine.port import Precision
from edge_tui.engine.text.template_variables import write_assignments
from edge_tui.util.sanitise import sanitise

if TYPE_CHECKING:
    from collections.abc import Iterator

    from edge_tui.engine.events import Loaded, Started
    from edge_tui.history.runs import StoredRun

NOT_RECORDED = "not recorded"
"""Stands for what an older edge-tui did not write down."""
_LONGEST = 100_000
"""Bytes of a prompt that systems take as one argument."""
_REMOTE = "remote"
"""Tier of models on a server."""


@dataclass(frozen=True, slots=True)
class Reproduction:
    """Says how a run is made again.

    Attributes:
        arguments: The command line, the program first; empty where none makes the run again.
        threads: Threads of a CPU, which decide how sums are rounded; 0 for other devices.
        notes: Sentences: what the command leaves out, or why there is none.
    """

    arguments: tuple[str, ...] = ()
    threads: int = 0
    notes: tuple[str, ...] = ()

    @property
    def line(self) -> str:
        """The command as bash and zsh read it, on one line, with the notes as its comment."""
        notes = " ".join(self.notes)
        if not self.arguments:
            return f"no command: {notes}"
        threads = f"OMP_NUM_THREADS={self.threads} " if self.threads else ""
        return f"{threads}{' '.join(map(quote, self.arguments))}{f'  # {notes}' if notes else ''}"


def reproduction(stored: StoredRun) -> Reproduction:
    """Returns the command that makes a run again, with all values that it was decoded under."""
    started = stored.started
    if reason := _refusal(stored):
        return Reproduction(notes=(reason,))
    assert started is not None
    arguments = ["edge-tui", "run", *_models(stored), "--strategy", started.strategy]
    for name, resolved in started.values.items():
        values = resolved.value if isinstance(resolved.value, tuple) else (resolved.value,)
        arguments += [part for value in values or ("",) for part in ("--set", f"{name}={_written(value)}")]
    if (ended := proposing_ended(stored)) is not None:
        arguments += [f"--proposing-ends={ended}"]
    arguments += ["--seed", str(started.seed), *_prompt(stored)]
    return Reproduction(tuple(arguments), started.threads, tuple(_notes(stored, started)))


def proposing_ended(stored: StoredRun) -> int | None:
    """Returns the step at which a run ended proposing, as `Request.proposing_ends` takes it.

    None where that is not known, or where the run's steps begin behind kept tokens.
    """
    finished = stored.finished
    return finished.proposing_ended if finished is not None and not stored.request.prefix else None


def _refusal(stored: StoredRun) -> str:
    """Tells why no command makes a run again; "" if one does."""
    request, main = stored.request, _main(stored)
    if stored.started is None:
        return "the run never began."
    if main is None or not main.precision:
        return "the model was not this machine's, or is not recorded."
    if request.prefix:
        return f"the run goes on from {len(request.prefix):,} kept tokens, which a command cannot name."
    if request.ids:
        return "the prompt came as token ids, which a command cannot name."
    text = _text(stored)
    if text is None:
        return "the run is a turn of a conversation; ^g in the history runs it again."
    if "\0" in text or any("\ud800" <= each <= "\udfff" for each in text):
        return "the prompt holds characters that no command line takes."
    return ""


def _main(stored: StoredRun) -> Loaded | None:
    return next(iter(stored.models.values()), None)


def _text(stored: StoredRun) -> str | None:
    """Returns the prompt as one text; None for a conversation of several turns."""
    prompt = stored.request.prompt
    if isinstance(prompt, str):
        return prompt
    return prompt[0].content if len(prompt) == 1 and prompt[0].role == "user" else None


def _models(stored: StoredRun) -> Iterator[str]:
    """Yields the flags of the models, their precision and their device."""
    for role, model in stored.models.items():
        yield from (f"--{role}", model.name)
    main = _main(stored)
    assert main is not None
    precision = main.precision if main.precision in get_args(Precision) else "auto"
    device = _device(main)
    yield from ("--precision", precision, "--device", device)
    others = {role: _device(model) for role, model in list(stored.models.items())[1:]}
    if set(others.values()) - {device}:
        for role, each in others.items():
            yield from (f"--{role}-device", each)


def _device(model: Loaded) -> str:
    """Returns a model's device, on whichever machine."""
    return model.device.partition(" of ")[0]


def _prompt(stored: StoredRun) -> Iterator[str]:
    """Yields the flags of the request, and the prompt last."""
    request, main, text = stored.request, _main(stored), _text(stored)
    assert main is not None
    assert text is not None
    yield from ("--max-new-tokens", str(request.max_length))
    if request.samples > 1:
        yield from ("--n", str(request.samples))
    for each in request.stop:
        yield f"--stop={each}"
    yield "--chat" if main.chat and request.chat is not False else "--raw"
    if request.system:
        yield f"--system={request.system}"
    for name, value in request.template.items():
        yield from ("--template", write_assignments({name: value}))
    if request.control_tokens:
        yield "--control-tokens"
    yield from ("-f", "prompt.txt") if _is_long(text) else ("--", text)


def _notes(stored: StoredRun, started: Started) -> Iterator[str]:
    """Yields what the command cannot say."""
    turned = [f"{each.name} {each.value:.6g} from #{each.index}" for each in stored.changes]
    if turned:
        yield f"It leaves out what was turned while the run went on: {', '.join(turned)}."
    if stored.entry.reason == "cancelled" or stored.entry.state != "finished":
        yield f"The run broke off after {stored.entry.tokens:,} tokens; the command goes on."
    if len({model.precision for model in stored.models.values()}) > 1:
        yield "Its models have different precisions; the flag names the first one's."
    main = _main(stored)
    if main is not None and main.tier == _REMOTE:
        yield f"It is for {main.device.partition(' of ')[2]}, which decoded the run."
    try:
        proposes = decoders.find(started.strategy).kind == "propose"
    except decoders.UnknownStrategy:
        yield f"The strategy {started.strategy} is not installed here."
    else:
        if proposes and proposing_ended(stored) is None:
            yield "When proposing ends depends on time, and the draws behind that with it."
    if _is_long(_text(stored) or ""):
        yield "prompt.txt is the prompt and a line break."


def _is_long(text: str) -> bool:
    return len(text.encode(errors="replace")) > _LONGEST


def _written(value: float | str) -> str:
    """Writes a value with all of its digits."""
    return value if isinstance(value, str) else repr(value).removesuffix(".0")


def quote(text: str) -> str:
    """Quotes an argument for bash and zsh, so that it stands on one line and nothing in it is invisible."""
    if text.isprintable() and sanitise(text) == text:
        return shlex.quote(text)
    return "$'" + re.sub(r"[^ -&(-\[\]-~]", _escape, text) + "'"


def _escape(match: re.Match[str]) -> str:
    char = match.group()
    if char in "\n\t\r":
        return {"\n": r"\n", "\t": r"\t", "\r": r"\r"}[char]
    if char in "\\'":
        return f"\\{char}"
    if char.isprintable() and sanitise(char) == char:
        return char
    return "".join(f"\\x{byte:02x}" for byte in char.encode())
