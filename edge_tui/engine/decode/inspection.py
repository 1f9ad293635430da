"""Inspects a user's strategy where a run begins; steps that are captured or replayed are copies of those."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from edge_tui.decoders.base import Decoder, Stage
from edge_tui.decoders.core.attributes import Attributes
from edge_tui.decoders.core.checks import (
    BROKEN,
    Inspection,
    check_numbers,
    check_state,
    check_step,
    init,
    is_own,
    name_of,
)
from edge_tui.decoders.core.errors import StrategyError
from edge_tui.decoders.registry.declarations import check_shape, stages_of
from edge_tui.errors import RequestError

if TYPE_CHECKING:
    from edge_tui.decoders.base import Env, Output, Params, State, Step
    from edge_tui.decoders.core.random import Rng


def check_request(decoder: Decoder, rows: int, num_draft_tokens: int, prefix: int) -> None:
    """Refuses a run that a strategy cannot decode, before its prompt is read.

    Args:
        decoder: The strategy.
        rows: What `decoder.rows` gave.
        num_draft_tokens: What `decoder.num_draft_tokens` gave.
        prefix: Tokens that are kept of an earlier run.

    Raises:
        StrategyError: rows or proposals that no face could show.
        RequestError: the run would go on without what the strategy has learned.
    """
    check_shape(decoder, rows, num_draft_tokens)
    for stage in stages_of(decoder) if prefix else ():
        if type(stage).observe is not Stage.observe and not is_own(type(stage)):
            raise _forgets(decoder, name_of(stage.observe))


class Inspector:
    """The strategy of one runner, as the runner calls it.

    Strategies of our own are called as they are: tests compare them with references.

    Args:
        decoder: The strategy.
        proposes: Whether its steps read the positions of proposals.
    """

    def __init__(self, decoder: Decoder, proposes: bool = False) -> None:
        self._decoder = decoder
        self._proposes = proposes
        self._strangers = [stage for stage in stages_of(decoder) if not is_own(type(stage))]
        self.is_own = not self._strangers and is_own(type(decoder))
        self._attributes: Attributes | None = None
        self._seen: set[object] = set()
        self._written: set[str] = set()
        self._prefix = 0

    def begin(self, env: Env, captured: bool) -> State:
        """Calls `init`.

        Args:
            env: What it is told.
            captured: Whether the steps of an earlier run may be replayed.

        Raises:
            StrategyError: its state cannot be used.
            RequestError: the strategy has learned in that run, and this one goes on from a prefix.
        """
        if self.is_own:
            return self._decoder.init(env)
        self._prefix = env.prefix
        self._seen.clear()
        if captured:
            self._check_prefix()
        self._attributes = Attributes(self._decoder)
        state = init(self._decoder, env)
        self._attributes.check("init")
        # What lies elsewhere as well, as the prompt does, would be overwritten by another run.
        return {name: tensor.clone() for name, tensor in state.items()}

    def step(self, outs: Mapping[str, Output], s: State, p: Params, rng: Rng) -> Step:
        """Calls `step`; in full inspection where it is the first of its kind in a run.

        Raises:
            StrategyError: it breaks the contract.
            RequestError: the run goes on from a prefix, and the strategy learns.
        """
        if self.is_own:
            return self._decoder.step(outs, s, p, rng)
        held, kind = dict(s), self._kind(outs, p)
        inspection = None
        if kind in self._seen or _is_capturing():
            took = self._decoder.step(outs, s, p, rng)
        else:
            lent = {f"the logits of {name}": output.logits for name, output in outs.items()}
            lent |= {"the parameters": p.table, "rng.key": rng.key, "rng.row": rng.row, "rng.step": rng.step}
            inspection = Inspection(self._decoder, s)
            with inspection.watching(lent):
                took = self._decoder.step(outs, s, p, rng)
        check_state(self._decoder.step, held, s)
        logits = next(iter(outs.values())).logits
        positions = logits.shape[1] if self._proposes else 0
        check_step(self._decoder, took, len(logits), logits.shape[-1], positions, logits.device)
        if inspection is not None:
            self._seen.add(kind)
            check_numbers(self._decoder, took, len(logits), logits)
            assert self._attributes is not None, "begin comes first"
            self._attributes.check("step")
            self._written |= inspection.written
            self._check_prefix()
        return took

    def diagnose(
        self, outs: Mapping[str, Output], s: State, p: Params, rng: Rng, index: int, is_astray: bool
    ) -> StrategyError:
        """Finds out which stage broke a step, by doing one like it in full inspection.

        Args:
            outs: Logits, as for `step`.
            s: The state; left as it is.
            p: The parameters.
            rng: The random numbers.
            index: The token that could not be chosen.
            is_astray: Whether it was an id rather than the numbers.

        Returns:
            The error, with the only stage that is not ours, else the step, where it does not happen again.
        """
        copies = {name: tensor.clone() for name, tensor in s.items()}
        at = self._strangers[0].apply if len(self._strangers) == 1 and not is_astray else self._decoder.step
        said = "gave an id that there is not; it must be one of the vocabulary." if is_astray else BROKEN
        error = StrategyError(f"{name_of(at)} {said}", at)
        try:
            with Inspection(self._decoder, copies).watching({}):
                took = self._decoder.step(outs, copies, p, rng)
            logits = next(iter(outs.values())).logits
            check_numbers(self._decoder, took, len(logits), logits)
        except StrategyError as found:
            error = found
        except Exception:
            pass  # a step that was not asked for says nothing about the one that was
        problem = replace(error.problem, sentence=f"At token {index}, {error.problem.sentence}")
        return StrategyError(problem.sentence, problem=problem)

    def _kind(self, outs: Mapping[str, Output], p: Params) -> object:
        """What the operations of a step depend on: positions, and on a CPU which parameters are neutral."""
        logits = next(iter(outs.values())).logits
        on_cpu = logits.device.type == "cpu"
        return logits.shape, on_cpu and tuple(p.is_neutral(param) for param in self._decoder.params)

    def _check_prefix(self) -> None:
        if self._prefix and self._written:
            names = sorted({name.rpartition(".")[2] for name in self._written})  # a chain's have a number
            raise _forgets(self._decoder, ", ".join(f"s[{name!r}]" for name in names))


def _is_capturing() -> bool:
    import torch

    return torch.cuda.is_available() and torch.cuda.is_current_stream_capturing()


def _forgets(decoder: Decoder, what: str) -> RequestError:
    return RequestError(
        f"{decoder.title} keeps what it learns from step to step ({what}), which a continued run would lack:"
        " run the prompt from its start.",
        "prefix",
    )
