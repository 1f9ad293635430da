"""`edge-tui score`: prints how surprised a model is by a text. Decodes nothing."""

from __future__ import annotations

import json
import sys
import time
from math import isnan
from typing import TYPE_CHECKING, Any

from edge_tui.cli.flag_settings import load_settings
from edge_tui.cli.messages import fail, print_line
from edge_tui.cli.text_input import read_text
from edge_tui.engine import events
from edge_tui.engine.port import Request
from edge_tui.errors import UsageError
from edge_tui.transcript.text_score import score
from edge_tui.util import logs

if TYPE_CHECKING:
    from collections.abc import Iterator

    from edge_tui.engine.events import PromptRead
    from edge_tui.engine.port import Engine
    from edge_tui.transcript.text_score import TextScore

_POLL_SECONDS = 0.005


def run(flags: dict[str, Any]) -> int:
    """Scores a text.

    Returns:
        The exit status: 0, 1 if the model could not read it.

    Raises:
        UsageError: the text or a flag cannot be used.
    """
    from edge_tui.engine.local import LocalEngine

    file, as_json = flags.pop("file", None), flags.pop("json", False)
    settings, notices = load_settings(flags)
    if file is None and sys.stdin.isatty():
        raise UsageError("there is no text; name a file, or give it on standard input.")
    request = Request(
        read_text(file, "text"),
        strategy="greedy",
        chat=False,
        max_length=0,
        control_tokens=settings.control_tokens,
        prompt_logps=True,
    )
    for notice in notices:
        print_line(str(notice), sys.stderr)
    engine = LocalEngine(settings.specs())
    try:
        engine.submit(request)
        read = _wait(engine)
    finally:
        engine.close()
    if read is None:
        return 1
    found = score(read)
    if not found.tokens:
        return fail("the text is one token, and nothing comes before it: there is nothing to score.")
    for line in _json_lines(read, found) if as_json else [_sentence(found)]:
        print(line)
    return 0


def _wait(engine: Engine) -> PromptRead | None:
    """Waits until the text is read; None, after a message, where it cannot be."""
    read = None
    while True:
        for event in engine.poll():
            match event:
                case events.PromptRead():
                    read = event
                case events.Started():
                    for notice in event.notices:
                        print_line(notice, sys.stderr)
                case events.Finished():
                    return read
                case events.Failed() | events.Died():
                    fail(event.message)
                    if event.detail:
                        logs.write_detail(event.detail)
                    return None
        time.sleep(_POLL_SECONDS)


def _sentence(found: TextScore) -> str:
    return (
        f"{found.tokens:,} tokens · {found.nats:.2f} nats · perplexity {found.perplexity:.4f}"
        f" · {found.bits_per_byte:.4f} bits/byte"
    )


def _json_lines(read: PromptRead, found: TextScore) -> Iterator[str]:
    """Yields an object for each token, then the sums."""
    columns = (read.ids, read.text, read.logp.tolist(), read.rank.tolist(), read.entropy.tolist())
    for index, (token, text, logp, rank, entropy) in enumerate(zip(*columns, strict=True)):
        known = not isnan(logp)
        yield json.dumps(
            {
                "index": index,
                "id": token,
                "text": text,
                "logp": logp if known else None,
                "rank": rank if known else None,
                "entropy": entropy if known else None,
            },
            ensure_ascii=False,
        )
    yield json.dumps(
        {
            "tokens": found.tokens,
            "nats": found.nats,
            "bytes": found.bytes,
            "perplexity": found.perplexity,
            "bits_per_byte": found.bits_per_byte if found.bytes else None,
        }
    )
