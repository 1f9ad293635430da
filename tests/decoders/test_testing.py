"""The check for authors of strategies: it finds each way to break the contract, and passes what keeps it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch

from edge_tui import decoders
from edge_tui.decoders import StrategyError
from edge_tui.decoders.base import Decoder, Edge, Filter, Param, ParamError, Step, Stream, Token, last_logits
from edge_tui.decoders.testing import check

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

QUICK = [
    decoder
    for decoder in decoders.strategies()
    if decoder.name in ("top_p", "beam", "speculative", "contrastive")
]


@pytest.mark.parametrize("decoder", QUICK, ids=lambda decoder: decoder.name)
def test_each_kind_of_ours_passes(decoder: Decoder) -> None:
    check(decoder, cases=2)


@pytest.mark.proof
@pytest.mark.parametrize("decoder", decoders.strategies(), ids=lambda decoder: decoder.name)
def test_ours_pass(decoder: Decoder) -> None:
    check(decoder, cases=20)


class Mirostat(Filter):
    """Learns in `observe`, as it should."""

    name, title, summary = "learner", "learner", "Learns."
    params = (Param("tau", 3.0, 0.1, 20.0, "Surprise."),)

    def init(self, env: Any) -> Any:
        return {"mu": torch.full((env.rows, 1), 6.0)}

    def apply(self, z: Tensor, p: Any, s: Any, rng: Any) -> Tensor:
        surprise = -z.log_softmax(-1)
        kept = (surprise <= s["mu"]) | (surprise <= surprise.amin(-1, keepdim=True))
        return z.masked_fill(~kept, -torch.inf)

    def observe(self, s: Any, p: Any, token: Token) -> None:
        s["mu"].sub_(0.3 * (-token.final[:, None] - p["tau"]))


def test_a_learner_passes_with_any_value() -> None:
    check(Mirostat)
    check(Mirostat, tau=0.5)
    with pytest.raises(ParamError, match="tau"):
        check(Mirostat, tau=-1.0)
    with pytest.raises(StrategyError, match="has no parameter 'tua'"):
        check(Mirostat, tua=1.0)


def broken(apply: Callable[..., Tensor], **more: Any) -> type[Filter]:
    """Makes a filter that breaks the contract in one way."""
    members = {"name": "mine", "title": "mine", "summary": "Breaks it.", "apply": apply, **more}
    return type("Mine", (Filter,), members)


def counts(self: object, z: Tensor, p: Any, s: Any, rng: Any) -> Tensor:
    s["n"] += 1
    return z / s["n"]


def remembers(self: Any, z: Tensor, p: Any, s: Any, rng: Any) -> Tensor:
    self.last = z.amax()
    return z


K = Param("k", 5, 1, 50, "Candidates.", integer=True, neutral=50)
BROKEN = {
    "writes to z": broken(lambda self, z, p, s, rng: z.mul_(2)),
    "float32 [3,": broken(lambda self, z, p, s, rng: z[:, :-1]),
    "NaN or +inf": broken(lambda self, z, p, s, rng: z + float("nan")),
    "asks for numbers": broken(lambda self, z, p, s, rng: z if z.amax() > 1e9 else z * 2),
    "two results": broken(lambda self, z, p, s, rng: z + torch.randn_like(z)),
    "rows must not mix": broken(lambda self, z, p, s, rng: z + z.flip(0)),
    "changes in observe": broken(counts, init=lambda self, env: {"n": torch.ones(env.rows, 1)}),
    "into self.last": broken(remembers, last=None),
    "than its edge says": broken(
        lambda self, z, p, s, rng: z.masked_fill(z < z.topk(6).values[:, -1:], -torch.inf),
        params=(K,),
        edge=Edge("depth", "count", "k"),
    ),
    "changes logits at its neutral k = 50": broken(
        lambda self, z, p, s, rng: z * 2, params=(K,), reshapes=True
    ),
    "must say reshapes = True": broken(lambda self, z, p, s, rng: z * 2),
    "is not lower case letters": broken(lambda self, z, p, s, rng: z, name="Mine"),
    "has no apply": type("Mine", (Filter,), {"name": "mine", "title": "mine", "summary": "Breaks it."}),
}


@pytest.mark.parametrize("words", BROKEN)
def test_what_breaks_the_contract_is_found(words: str) -> None:
    with pytest.raises(StrategyError) as error:
        check(BROKEN[words], cases=3)
    assert words in str(error.value)


class Raises(Filter):
    """Has no state of that name."""

    name, title, summary = "raises", "raises", "Raises."

    def apply(self, z: Tensor, p: Any, s: Any, rng: Any) -> Tensor:
        return z / s["nothing"]


class Rebinds(Filter):
    """Loses its state."""

    name, title, summary = "rebinds", "rebinds", "Rebinds."

    def init(self, env: Any) -> Any:
        return {"n": torch.ones(env.rows, 1)}

    def apply(self, z: Tensor, p: Any, s: Any, rng: Any) -> Tensor:
        s["n"] = s["n"] + 1
        return z


class Asks(Filter):
    """Looks at a number."""

    name, title, summary = "asks", "asks", "Asks."

    def apply(self, z: Tensor, p: Any, s: Any, rng: Any) -> Tensor:
        best = z.amax()
        return z / 2 if best.item() > 0 else z


class Mixes(Filter):
    """Reads its neighbours."""

    name, title, summary = "mixes", "mixes", "Mixes."

    def apply(self, z: Tensor, p: Any, s: Any, rng: Any) -> Tensor:
        return z + z.flip(0)


@pytest.mark.parametrize(
    ("strategy", "line", "words"),
    [
        (Asks, Asks.apply.__code__.co_firstlineno + 2, "Asks.apply asks for numbers"),
        (Mixes, Mixes.apply.__code__.co_firstlineno, "Mixes.apply decodes a row otherwise"),
        (Raises, Raises.apply.__code__.co_firstlineno + 1, "Raises.apply raised KeyError: 'nothing'."),
        (Rebinds, Rebinds.apply.__code__.co_firstlineno, "Rebinds.apply puts another tensor under s['n']"),
    ],
)
def test_an_error_is_told_with_its_own_reason_and_line(strategy: type[Filter], line: int, words: str) -> None:
    """It is not taken for a question about numbers, which is an error on the meta device."""
    with pytest.raises(StrategyError) as error:
        check(strategy, cases=1)
    assert str(error.value).startswith(f"test_testing.py, line {line}: {words}")


class Forgets(Mirostat):
    """Learns half of it outside of what a run that goes on calls."""

    def observe(self, s: Any, p: Any, token: Token) -> None:
        s["mu"].sub_(0.3 * (-token.final[:, None] - p["tau"]) * (1 + 0.1 * len(OUTSIDE)))
        OUTSIDE.append(token)


OUTSIDE: list[Token] = []


def test_what_is_forgotten_when_a_run_goes_on_is_found() -> None:
    with pytest.raises(StrategyError):
        check(Forgets)


class Late(Mirostat):
    """Breaks once it has learned."""

    def apply(self, z: Tensor, p: Any, s: Any, rng: Any) -> Tensor:
        return z.masked_fill(s["mu"] > 6.0, torch.nan)

    def observe(self, s: Any, p: Any, token: Token) -> None:
        s["mu"].add_(0.5)


def test_numbers_that_break_in_a_later_step_are_found() -> None:
    with pytest.raises(StrategyError, match=r"Late\.apply gave NaN"):
        check(Late, cases=1)


class Guided(Decoder):
    """Reads two streams."""

    name, title, summary = "guided", "guided", "Away from another prompt."
    streams = Stream("model", "model"), Stream("other", "model", "other")
    params = (Param("guidance", 1.5, 0, 10, "1 is none."),)

    def prompts(self, main: Any, texts: Any) -> Any:
        return {"other": main.last(1)}

    def logits(self, outs: Any, s: Any, p: Any) -> Tensor:
        a, b = (last_logits(outs[name], s).log_softmax(-1) for name in ("model", "other"))
        return b + p["guidance"] * (a - b)


class OneRow(Guided):
    name = "one_row"

    def step(self, outs: Any, s: Any, p: Any, rng: Any) -> Step:
        step = super().step(outs, s, p, rng)
        return Step(step.chosen[:1], step.final)


def test_a_decoder_is_checked_too() -> None:
    check(Guided)
    with pytest.raises(StrategyError, match=r"OneRow\.step returned Step\.chosen int64 \[1\]"):
        check(OneRow)
