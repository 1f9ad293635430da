"""Makes the question why a token was taken from the transcript that has it."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from edge_tui import decoders
from edge_tui.engine.port import Question
from edge_tui.transcript.kept_tokens import with_kept

if TYPE_CHECKING:
    from edge_tui.engine.port import Request
    from edge_tui.transcript.transcript import Transcript


def question_of(
    transcript: Transcript,
    request: Request,
    index: int,
    row: int = 0,
    *,
    ids: tuple[int, ...] = (),
    others: tuple[str, ...] = (),
) -> Question:
    """Builds the question about a token: a run of one row that ends where the token was chosen.

    Its values are those that the run had at that token, whatever the settings say by now.

    Args:
        transcript: The run, which may go on.
        request: That of the run.
        index: Position of the token on the path, tokens of the prefix counted.
        row: Of samples, the one that has the token. Of a search the path is its one answer.
        ids: Tokens to tell of beside.
        others: Strategies to ask what they would have taken; empty asks those on the digits.

    Raises:
        IndexError: there is no such token, or no such row.
        edge_tui.decoders.registry.registry.UnknownStrategy: the run's strategy is gone.
    """
    path = transcript.sample(row)
    token = path.token(index)
    values = {name: each.value for name, each in path.started.values.items()} or dict(request.values)
    values |= {change.name: change.value for change in path.changes if change.index <= index}
    asked = replace(
        request,
        values=values,
        # The values hold the temperature that the mode has set.
        mode="custom" if path.started.values else request.mode,
        seed=path.started.seed,
        samples=1,
        prefix=path.ids(index),
        prefix_logps=(),
        prefix_values=(),
        prompt_logps=False,
    )
    decoder = decoders.find(request.strategy)
    asked = with_kept(asked, path, request, decoder)
    recorded = dict(token.extras)
    if decoder.kind == "search":
        recorded["parent"] = float(path.parent_row(index))
    return Question(asked, token.id, ids, token.margin, others, path.started.model, recorded)
