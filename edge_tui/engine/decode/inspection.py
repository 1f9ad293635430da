"""Inspects a user's strategy in the first steps of a run; captured and replayed steps are copies of those."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING

from edge_tui.decoders.base import Decoder, numbers
from edge_tui.decoders.core.attributes import Attributes
from edge_tui.decoders.core.checks import (
    BROKEN,
    Inspection,
    check_state,
    constants,
    init,
    is_own,
)
from edge_tui.decoders.core.errors import StrategyError, fault
from edge_tui.decoders.core.step_checks import check_numbers, check_step
from edge_tui.decoders.registry.declarations import stages_of
from edge_tui.errors import RequestError

if TYPE_CHECKING:
    from edge_tui.decoders.base import Env, Output, Params, State, Step
    from edge_tui.decoders.core.random import Rng


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
        parts = decoder, *decoder.before.stages, *decoder.after.stages
        self.is_own = all(is_own(type(part)) for part in parts)
        stages = () if self.is_own else stages_of(decoder)  # which takes as long as 20 operations
        self._user_stages = [stage for stage in stages if not is_own(type(stage))]
        self._attributes: Attributes | None = None
        self._inspected: set[object] = set()
        self._writes: set[str] = set()
        self._prefix = 0
        self._constants: Collection[str] = ()

    def begin(self, env: Env, captured: bool) -> State:
        """Calls `constants` and `init`.

        Args:
            env: Their argument.
            captured: True where the steps of an earlier run may be replayed.

        Returns:
            The state and the constants together.

        Raises:
            StrategyError: a tensor cannot be used, or the two share a name.
            RequestError: the strategy has learned in that run, and this one goes on from a prefix.
        """
        if self.is_own:
            return self._decoder.constants(env) | self._decoder.init(env)
        self._prefix = env.prefix
        self._inspected.clear()
        if captured:
            self._check_prefix()
        self._attributes = Attributes(self._decoder)
        fixed = constants(self._decoder.constants, env)
        self._attributes.check("constants")
        state = init(self._decoder.init, env)
        self._attributes.check("init")
        if both := sorted(fixed.keys() & state.keys()):
            raise fault(self._decoder.init, f"returned {both[0]!r}, which is the name of a constant.")
        self._constants = fixed.keys()
        # What lies elsewhere as well, as the prompt does, would be overwritten by another run.
        return {name: tensor.clone() for name, tensor in (fixed | state).items()}

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
            inputs |= {f"the constant {name}": s[name] for name in self._constants}
            inspection = Inspection(self._decoder.step, s)
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
            with Inspection(self._decoder.step, copies).watch({}):
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
        f"{decoder.title} changes {what} outside observe, which a continued run would lack:"
        " run the prompt from its start.",
        "prefix",
    )
