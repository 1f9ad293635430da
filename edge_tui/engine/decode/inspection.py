"""Inspects a user's strategy in the first steps of a run; captured and replayed steps are copies of those."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from edge_tui.decoders.base import Decoder, Stage, numbers
from edge_tui.decoders.core.attributes import Attributes
from edge_tui.decoders.core.checks import (
    BROKEN,
    Inspection,
    check_numbers,
    check_state,
    check_step,
    init,
    is_own,
)
from edge_tui.decoders.core.errors import StrategyError, fault, name_of
from edge_tui.decoders.registry.declarations import check_shape, stages_of
from edge_tui.errors import RequestError

if TYPE_CHECKING:
    from edge_tui.decoders.base import Env, Output, Params, State, Step
    from edge_tui.decoders.core.random import Rng


def check_request(decoder: Decoder, rows: int, num_draft_tokens: int, prefix: int) -> None:
    """Refuses a run that a strategy cannot decode, before its prompt is read.

    Args:
        decoder: The strategy.
        rows: The result of `decoder.rows`.
        num_draft_tokens: The result of `decoder.num_draft_tokens`.
        prefix: Number of tokens of an earlier run that this one continues.

    Raises:
        StrategyError: rows or proposals that no face could show.
        RequestError: the run would go on without what the strategy has learned.
    """
    check_shape(decoder, rows, num_draft_tokens)
    for stage in stages_of(decoder) if prefix else ():
        if type(stage).observe is not Stage.observe and not is_own(type(stage)):
            raise _forgets(decoder, name_of(stage.observe))


class StrategyInspector:
    """Calls the strategy of one runner, and checks what it returns.

    Strategies of our own are called as they are: tests compare them with references.

    Args:
        decoder: The strategy.
        proposes: True where its steps read the positions of proposals.
    """

    def __init__(self, decoder: Decoder, proposes: bool = False) -> None:
        self._decoder = decoder
        self._proposes = proposes
        self._user_stages = [stage for stage in stages_of(decoder) if not is_own(type(stage))]
        self.is_own = not self._user_stages and is_own(type(decoder))
        self._attributes: Attributes | None = None
        self._inspected: set[object] = set()
        self._writes: set[str] = set()
        self._prefix = 0

    def begin(self, env: Env, captured: bool) -> State:
        """Calls `init`.

        Args:
            env: Its argument.
            captured: True where the steps of an earlier run may be replayed.

        Raises:
            StrategyError: its state cannot be used.
            RequestError: the strategy has learned in that run, and this one goes on from a prefix.
        """
        if self.is_own:
            return self._decoder.init(env)
        self._prefix = env.prefix
        self._inspected.clear()
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
        before, kind = dict(s), self._kind(outs, p)
        inspection = None
        if kind in self._inspected or _is_capturing():
            step = self._decoder.step(outs, s, p, rng)
        else:
            inputs = {
                f"the {field} of {name}": tensor
                for name, output in outs.items()
                for field, tensor in output.tensors().items()
            }
            inputs |= {
                "the parameters": p.table,
                "rng.key": rng.key,
                "rng.step": rng.step,
            }
            inspection = Inspection(self._decoder, s)
            with inspection.watch(inputs):
                step = self._decoder.step(outs, s, p, rng)
        check_state(self._decoder.step, before, s)
        logits = next(iter(outs.values())).logits
        positions = logits.shape[1] if self._proposes else 0
        check_step(self._decoder, step, len(logits), logits.shape[-1], positions, logits.device)
        if inspection is not None:
            self._inspected.add(kind)
            check_numbers(self._decoder, step, len(logits), logits)
            assert self._attributes is not None, "begin comes first"
            self._attributes.check("step")
            self._writes |= inspection.writes
            self._check_prefix()
        return step

    def diagnose(
        self, outs: Mapping[str, Output], s: State, p: Params, rng: Rng, index: int, is_id: bool
    ) -> StrategyError:
        """Finds the stage that broke a step, by repeating it in full inspection.

        Args:
            outs: Logits, as for `step`.
            s: The state; left as it is.
            p: The parameters.
            rng: The random numbers.
            index: The token that could not be chosen.
            is_id: True where an id was wrong rather than the numbers.

        Returns:
            The error, with the only stage that is not ours, else the step, where it does not happen again.
        """
        copies = {name: tensor.clone() for name, tensor in s.items()}
        at = self._user_stages[0].apply if len(self._user_stages) == 1 and not is_id else self._decoder.step
        sentence = "gave an id that there is not; it must be one of the vocabulary." if is_id else BROKEN
        error = fault(at, sentence)
        try:
            with Inspection(self._decoder, copies).watch({}):
                step = self._decoder.step(outs, copies, p, rng)
            logits = next(iter(outs.values())).logits
            check_numbers(self._decoder, step, len(logits), logits)
        except StrategyError as found:
            error = found
        except Exception:
            pass  # the repeated step may fail for reasons of its own
        problem = error.problem
        return StrategyError(f"At token {index}, {problem.sentence}", place=(problem.source, problem.line))

    def _kind(self, outs: Mapping[str, Output], p: Params) -> object:
        """Keys the operations of a step: by its positions, and on a CPU by the neutral parameters."""
        logits = next(iter(outs.values())).logits
        on_cpu = logits.device.type == "cpu"
        return logits.shape, on_cpu and tuple(p.is_neutral(param) for param in numbers(self._decoder.params))

    def _check_prefix(self) -> None:
        if self._prefix and self._writes:
            names = sorted({name.rpartition(".")[2] for name in self._writes})  # a chain's have a number
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
