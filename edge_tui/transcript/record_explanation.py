"""Says of a token what its record alone tells of why it was taken, where nothing can be computed again."""

from __future__ import annotations

from collections import Counter
from math import exp, inf, isnan, nan
from typing import TYPE_CHECKING

from edge_tui.engine.explanation import Candidate, Explanation, StageView
from edge_tui.engine.token_fields import KEPT, TOP, UNKNOWN
from edge_tui.transcript.values_at import draws_at, remover_at, strategy_of
from edge_tui.transcript.why_text import share
from edge_tui.util.sanitise import visible

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from edge_tui.transcript.token_table import TokenView
    from edge_tui.transcript.transcript import Transcript


def explanation_of_record(
    transcript: Transcript,
    index: int,
    decode: Callable[[Sequence[int]], list[str]],
    reason: str,
    vocab: int = 0,
) -> Explanation:
    """Builds an explanation of the numbers that were recorded with a token. It has no luck and no sums.

    All stages together count as one; what each of them removed of the likeliest tokens is a fact. A token of
    which the record does not tell what became of it is no candidate.

    Args:
        transcript: The run, of one row (`Transcript.sample`).
        index: Number of the token.
        decode: Texts of ids.
        reason: Why nothing can be computed; becomes the note.
        vocab: Number of tokens that there are; 0 where that is not known.
    """
    token, decoder = transcript.token(index), strategy_of(transcript)
    drawn = draws_at(transcript, index)
    count = token.candidate_count
    if count < 0 and 0 < len(token.final) < TOP:
        count = len(token.final)
    removed = vocab - count if vocab and count >= 0 else 0
    title = decoder.title if decoder is not None else transcript.started.strategy
    candidates = _candidates(token, decode)
    notes = [reason]
    if token.candidate_count < 0:
        notes.append("An older edge-tui, or another server, recorded no margin with it.")
    return Explanation(
        token=token.id,
        winner=token.id,
        margin=token.margin,
        candidate_count=count,
        chance=exp(token.final_logp),
        entropy=token.entropy,
        drawn=drawn and count != 1,
        stages=(StageView(transcript.started.strategy, title, kept=count, removed=removed, mass=nan),),
        candidates=candidates,
        sentence=_sentence(token, candidates[0].text, drawn),
        facts=_facts(transcript, token, lambda id: visible(decode([id])[0])),
        exactness="record",
        note=" ".join(notes),
    )


def _candidates(token: TokenView, decode: Callable[[Sequence[int]], list[str]]) -> tuple[Candidate, ...]:
    """Lists the token, those of the final distribution, and the likeliest of which the record tells."""
    raw = {each.id: (each.logp, rank) for rank, each in enumerate(token.top)}
    raw[token.id] = (token.raw_logp, token.rank)
    final = {each.id: each.logp for each in token.final} | {token.id: token.final_logp}
    is_whole = 0 < len(token.final) < TOP
    left = dict.fromkeys(final, True)
    for each, stage in zip(token.top, token.removing_stage, strict=False):
        if stage != UNKNOWN or is_whole:
            left.setdefault(each.id, stage == KEPT)
    ids = list(dict.fromkeys((token.id, *left)))
    texts = decode(ids)
    if token.text:
        texts[0] = token.text
    return tuple(
        Candidate(
            *(each, text, *raw.get(each, (nan, -1))),
            logps=(final.get(each, nan) if left[each] else -inf,),
            criteria=(nan,),
            removing_stage=-1 if left[each] else 0,
            sum=nan if left[each] else -inf,
        )
        for each, text in zip(ids, texts, strict=True)
    )


def _sentence(token: TokenView, text: str, drawn: bool) -> str:
    if isnan(token.raw_logp):
        return f"{visible(text)} was taken; no number of it is known."
    model = f"{share(exp(token.raw_logp))} under the model"
    if not drawn or isnan(token.final_logp):
        return f"{visible(text)} was taken with {model}."
    return f"{visible(text)} was drawn with {share(exp(token.final_logp))}; it had {model}."


def _facts(
    transcript: Transcript, token: TokenView, quoted: Callable[[int], str]
) -> tuple[tuple[str, str], ...]:
    """Lists how many of the likeliest each stage removed, and the strategy's own numbers."""
    counts = Counter(stage for stage in token.removing_stage if stage not in (KEPT, UNKNOWN))
    cuts = [
        (f"cut by {remover_at(transcript, stage, token.index) or 'its own part'}", f"{n} of {len(token.top)}")
        for stage, n in sorted(counts.items())
    ]
    facts = [
        (each.name.replace("_", " "), each.fact(token.extras.get(each.name, nan), quoted))
        for each in transcript.started.column_details
    ]
    return (*cuts, *((name, fact) for name, fact in facts if fact))
