"""`edge-tui history why`: says why a token of a kept run was taken, by the models that wrote it.

Where that cannot be computed the record is told instead, with the reason.
"""

from __future__ import annotations

import os
import sys
import time
from contextlib import closing
from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast, get_args

from edge_tui.cli.flag_settings import load_settings, pop_flags
from edge_tui.cli.messages import fail, print_line
from edge_tui.cli.why import POLL_SECONDS, Asker, read_tokens
from edge_tui.cli.why_output import WhyPrinter
from edge_tui.engine import events
from edge_tui.engine.port import ModelSpec, Precision
from edge_tui.engine.remote.explanation_json import write_explanation
from edge_tui.errors import UsageError
from edge_tui.history.explain_limits import compare, refusal
from edge_tui.transcript.run_state import EngineState
from edge_tui.util.json_text import json_line

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from edge_tui.cli.why import Tokens
    from edge_tui.engine.explanation import Explanation
    from edge_tui.history.runs import StoredRun
    from edge_tui.transcript.transcript import Transcript

_SETTINGS = ("config", "decoder_folders")
"""Flags that are settings."""


def why(
    stored: StoredRun, transcript: Transcript, token_strings: Mapping[int, str], flags: Mapping[str, Any]
) -> int:
    """Explains tokens of a run; returns the exit status: 1 where no more than the record is known.

    Args:
        stored: The run.
        transcript: Its tokens.
        token_strings: Texts of its model's ids.
        flags: `token`, `row` and `json` of the command line.

    Raises:
        UsageError: the run has no such token or row.
    """
    tokens = read_tokens(flags["token"])
    if tokens is None:
        raise UsageError(f"why takes a token's number, last or all, not {flags['token']!r}.")
    printer = WhyPrinter(sys.stdout, os.environ)
    status, told = 0, set[str]()
    for index, answer in explanations(stored, transcript, token_strings, flags, tokens):
        if answer.exactness == "record":
            status = 1
            if answer.note not in told:
                told.add(answer.note)
                fail(answer.note)
        if flags["json"]:
            place = {"type": "explanation", "step": index, "row": flags["row"]}
            print(json_line({**place, **write_explanation(answer)}, ascii_only=sys.stdout.isatty()))
            continue
        # The reason of a record stands on standard error already.
        shown = replace(answer, note="") if answer.exactness == "record" else answer
        (printer.line if tokens == "all" else printer.ladder)(shown, f"#{index}")
    return status


def explanations(
    stored: StoredRun,
    transcript: Transcript,
    token_strings: Mapping[int, str],
    flags: Mapping[str, Any],
    tokens: Tokens,
) -> Iterator[tuple[int, Explanation]]:
    """Explains tokens of one answer of a run, with their numbers; by their record where its models are gone.

    Arguments and errors are those of `why`; `tokens` are the ones to explain.
    """
    load_settings(pop_flags(dict(flags), _SETTINGS))  # they say where the user's own strategies are
    reason = refusal(stored)
    with closing(_Models({} if reason else _specs(stored))) as models:
        asker = Asker(
            models.engine,
            transcript,
            stored.request,
            lambda ids: [token_strings.get(each, "") for each in ids],
            model=stored.model,
            vocab=next((each.vocab for each in stored.models.values()), 0),
        )
        places = list(asker.places(tokens, [flags.get("row", 0)]))
        if not reason and places:
            reason = models.load()
        for row, index in places:
            answer = asker.of_record(row, index, reason) if reason else asker.explain(row, index)
            assert answer is not None, "nobody takes a question back here"
            if answer.exactness != "record":
                answer = compare(answer, stored, transcript.sample(row).token(index), models.state.loaded)
            yield index, answer


def _specs(stored: StoredRun) -> dict[str, ModelSpec]:
    """Returns the models of a run by role, with the precision and the device that they had."""
    specs = {}
    for role, model in stored.models.items():
        precision = model.precision if model.precision in get_args(Precision) else "auto"
        device = "auto" if model.tier == "remote" else model.device
        specs[role] = ModelSpec(model.name, cast("Precision", precision), device)
    return specs


class _Models:
    """Holds an engine with the models of a run.

    Args:
        specs: The models by role.
    """

    def __init__(self, specs: Mapping[str, ModelSpec]) -> None:
        from edge_tui.engine.local import LocalEngine

        self.engine = LocalEngine(dict(specs))
        self.state = EngineState()
        self._specs = specs

    def load(self) -> str:
        """Loads the models; returns why one cannot be loaded, "" where all are there."""
        for spec in set(self._specs.values()):
            roles = [role for role, each in self._specs.items() if each == spec]
            if refused := self._load(roles[0]):
                # Another device or precision computes nearly the same.
                for role in roles:
                    self.engine.assign(role, replace(spec, precision="auto", device="auto"))
                if self._load(roles[0]):
                    return refused
        return ""

    def close(self) -> None:
        """Ends the engine."""
        self.engine.close()

    def _load(self, role: str) -> str:
        """Loads one model and waits for it; returns why that failed."""
        self.engine.load(role)
        while True:
            for event in self.engine.poll():
                self.state.apply(event)
                match event:
                    case events.Loading() if sys.stderr.isatty():
                        print_line(f"Loading {event.name}.", sys.stderr)
                    case events.Loaded():
                        return ""
                    case events.Failed() | events.Died():
                        return event.message
            time.sleep(POLL_SECONDS)
