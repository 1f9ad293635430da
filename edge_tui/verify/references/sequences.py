"""Computes barred texts and biased tokens, and calls transformers' classes. Every byte is a token."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from math import inf
from typing import TYPE_CHECKING, TypeAlias

from edge_tui.verify.outcome import Context, Float64, Outcome, outcome
from edge_tui.verify.references.kinds import Peer, StageReference, Texts, Values

if TYPE_CHECKING:
    import torch
    from numpy.random import RandomState

Biases: TypeAlias = Mapping[tuple[int, ...], float]
Reader: TypeAlias = Callable[[Context], Biases]
"""Reads what is added to the last token of each sequence."""
_ALPHABET = 5
"""Different bytes of the texts: the first ones, which the smallest vocabularies have as well."""


def _words(random: RandomState) -> tuple[str, ...]:
    """Draws up to six texts of one to three bytes."""
    lengths = random.randint(1, 4, random.randint(0, 7))
    return tuple("".join(map(chr, random.randint(0, _ALPHABET, length))) for length in lengths)


def _barred(context: Context) -> Biases:
    words = context.texts.get("bad_words", ())
    behind_space = [f" {word}" for word in words if not word[0].isspace()]
    barred = [tuple(word.encode()) for word in (*words, *behind_space)]
    # A token alone that ends the answer is let through, as in transformers.
    return {ids: -inf for ids in barred if len(ids) > 1 or ids[0] not in context.ends}


def _biased(context: Context) -> Biases:
    pairs = (text.rpartition("=") for text in context.texts.get("logit_bias", ()))
    return {tuple(word.encode()): float(number) for word, _, number in pairs}


def _some_biases(random: RandomState) -> tuple[str, ...]:
    return tuple(f"{word}={random.randint(-100, 101) / 4}" for word in _words(random))


def _add(biases: Biases, z: Float64, context: Context) -> Float64:
    """Adds each number where the text so far ends in all of its sequence but the last token."""
    written, z = (*context.prompt, *context.output), z.copy()
    for ids, bias in biases.items():
        before = ids[:-1]
        if max(ids) < len(z) and written[len(written) - len(before) :] == before:
            z[ids[-1]] += bias
    return z


def _known(biases: Biases, width: int, context: Context) -> Iterator[list[int]]:
    """Yields the sequences that transformers takes: tokens that there are, no longer than the text so far."""
    length = len(context.prompt) + len(context.output)
    yield from (list(ids) for ids in biases if max(ids) < width and len(ids) <= max(length, 1))


def _reference(
    name: str, read: Reader, draw: Callable[[RandomState], Sequence[str]], peer: Peer
) -> StageReference:
    def loop(z: Float64, v: Values, context: Context) -> Sequence[Outcome]:
        changed = _add(read(context), z, context)
        return [outcome(changed, changed > -inf)]

    def texts(random: RandomState) -> Texts:
        return {name: tuple(draw(random))}

    shorter = "transformers adds nothing before as many tokens are written as a sequence has."
    return StageReference(loop, peer, disagreements=(shorter,), texts=texts, place="penalty")


def _call(read: Reader, z: torch.Tensor, context: Context) -> torch.Tensor | None:
    """Calls transformers' class; None where it leaves a sequence out, or every token is barred.

    transformers 5.17 refuses a bias of token 0, newer ones take it; it is left out with all of them.
    """
    import torch
    from transformers import NoBadWordsLogitsProcessor, SequenceBiasLogitsProcessor

    biases, width = read(context), z.shape[-1]
    known = list(_known(biases, width, context))
    if len(known) < sum(max(ids) < width for ids in biases):
        return None
    if not known:
        return z
    ids = torch.tensor([[*context.prompt, *context.output]])
    if set(biases.values()) == {-inf}:
        left: torch.Tensor = NoBadWordsLogitsProcessor(known, eos_token_id=None)(ids, z)
        return left if bool((left > -inf).any()) else None
    if any(0 in ids for ids in known):
        return None
    added: torch.Tensor = SequenceBiasLogitsProcessor([[each, biases[tuple(each)]] for each in known])(ids, z)
    return added


SEQUENCES: dict[str, StageReference] = {
    "bad_words": _reference(
        "bad_words",
        _barred,
        _words,
        Peer("transformers NoBadWordsLogitsProcessor", lambda z, v, context: _call(_barred, z, context)),
    ),
    "logit_bias": _reference(
        "logit_bias",
        _biased,
        _some_biases,
        Peer("transformers SequenceBiasLogitsProcessor", lambda z, v, context: _call(_biased, z, context)),
    ),
}
"""Stages whose parameters are texts; they stand before penalties and temperature."""
