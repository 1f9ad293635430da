"""Checks the tensors that stages and decoders read, return and write to while they decode.

Types, shapes and the names of a state are looked at in every step that runs operation by operation, which
costs a few microseconds. An `Inspection` looks at everything else in a run's first step: it sees each
operation that writes, and the numbers themselves. Captured and traced steps are copies of steps that passed.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from contextlib import contextmanager, nullcontext
from contextvars import ContextVar
from math import isfinite
from traceback import walk_stack
from typing import TYPE_CHECKING, Any

from edge_tui.decoders.core.errors import fault, place_of
from edge_tui.decoders.core.writes import watch_writes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from torch import Tensor

    from edge_tui.decoders.core.decoder import Choice, Decoder, Records, Step
    from edge_tui.decoders.core.params import Params
    from edge_tui.decoders.core.random import Rng
    from edge_tui.decoders.core.stage import Env, Stage, State

COUNTS = ("prompt_counts", "output_counts")
"""Keys of the shared token counts in a chain's state."""
_active: ContextVar[Inspection | None] = ContextVar("inspection", default=None)


def is_own(kind: type | Callable[..., object]) -> bool:
    """Tells whether a class or method belongs to this package, whose strategies have references."""
    return kind.__module__.startswith("edge_tui.decoders.")


def apply(stage: Stage, z: Tensor, p: Params, own: State, rng: Rng) -> Tensor:
    """Calls `stage.apply` and checks its result.

    Raises:
        StrategyError: it gave no logits of the same kind, or changed what it must not.
    """
    inspection = _active.get()
    if inspection is None and is_own(type(stage)):
        return stage.apply(z, p, own, rng)
    with _call(stage.apply, own, z=z):
        out = stage.apply(z, p, own, rng)
    _check_tensor(stage.apply, "", out, z.shape, z.dtype, z.device)
    if inspection is not None and not has_broken(z) and has_broken(out):
        raise fault(stage.apply, BROKEN)
    return out


def observe(stage: Stage, own: State, chosen: Tensor, logp: Tensor) -> None:
    """Calls `stage.observe` and checks the state.

    Raises:
        StrategyError: it changed what it must not.
    """
    with _call(stage.observe, own, chosen=chosen, logp=logp):
        stage.observe(own, chosen, logp)


def init(owner: Stage | Decoder, env: Env) -> State:
    """Calls `owner.init` and checks the state.

    Raises:
        StrategyError: it gave no state: row-first tensors by name, on the run's device.
    """
    lent = {} if is_own(type(owner)) else {"env.prompt": env.prompt, "env.eos": env.eos}
    with _lend(owner.init, lent):
        state: object = owner.init(env)
    if not isinstance(state, dict) or not all(isinstance(name, str) for name in state):
        raise fault(owner.init, f"returned {_type(state)}; it must return a dictionary of tensors by name.")
    for name, tensor in state.items():
        shape = (env.rows, *getattr(tensor, "shape", ())[1:])
        _check_tensor(owner.init, name, tensor, shape, None, env.device)
    return state


_WRITES = "writes to {}, which is not its own; it must make a new tensor."
BROKEN = "gave NaN or +inf; it must give finite logits, and −inf for what it removes."


def has_broken(z: Tensor) -> bool:
    """Tells whether logits hold NaN or +inf; waits for the device."""
    peak = z.amax()
    return not bool(peak < float("inf"))  # NaN spreads, and compares false


def check_step(decoder: Decoder, step: Step, rows: int, width: int, positions: int, device: object) -> None:
    """Checks types, shapes and names of a decoder's step, without looking at numbers.

    Args:
        decoder: The strategy.
        step: Its result.
        rows: Rows `R`.
        width: Vocabulary `V`.
        positions: Positions `K` that were read at once; 0 where a strategy proposes nothing.
        device: The device of the logits.

    Raises:
        StrategyError: a tensor is missing, of another shape or type, or would be read by nobody.
    """
    import torch

    from edge_tui.decoders.core.decoder import Step

    at = decoder.step
    if not isinstance(step, Step):
        raise fault(at, f"returned {_type(step)}; it must return a Step.")
    if step.parent is not None and not positions and not decoder.owns_eos:
        raise fault(at, "gave Step.parent, which only a strategy with owns_eos may.")
    places = (rows, positions) if positions else (rows,)
    unread = ("parent", "done", "candidates") if positions else ("accepted", "tokens")
    for name in unread:
        if getattr(step, name) not in (None, {}):
            raise fault(at, f"gave Step.{name}, which nothing reads of it.")
    for name, shape, dtype in (
        ("chosen", (rows,), torch.int64),
        ("final", (*places, width), torch.float32),
        ("accepted", (rows,), torch.int64),
        ("tokens", places, torch.int64),
        ("parent", (rows,), torch.int64),
        ("done", (rows,), torch.bool),
    ):
        value = getattr(step, name)
        if name not in unread and (value is not None or name not in ("parent", "done")):
            _check_tensor(at, f"Step.{name}", value, shape, dtype, device)
    for name, shape in (("extras", places), ("candidates", (rows, width))):
        columns: Mapping[str, Tensor] = getattr(step, name)
        if columns.keys() != set(decoder.columns) and (columns or name == "extras"):
            given, declared = sorted(columns), sorted(decoder.columns)
            raise fault(at, f"gave Step.{name} named {given}; they must be its columns, {declared}.")
        for column, tensor in columns.items():
            _check_tensor(at, f"Step.{name} {column!r}", tensor, shape, None, device)


def check_proposal(decoder: Decoder, proposed: Tensor, rows: int, device: object) -> None:
    """Checks a proposal: int64 `[R]`."""
    import torch

    _check_tensor(decoder.propose, "", proposed, (rows,), torch.int64, device)


def check_numbers(decoder: Decoder, step: Step, rows: int, raw: Tensor) -> None:
    """Checks the numbers of a step; waits for the device.

    Raises:
        StrategyError: an id or a row that there is not, NaN or +inf, or a token that is not in `final`.
    """
    import torch

    at, final = decoder.step, step.final
    ids = step.chosen
    if step.tokens is not None and step.accepted is not None:  # what lies beyond those accepted is any
        count = int(step.accepted.clamp(0, step.tokens.shape[1] - 1)[0])
        ids = torch.cat((step.tokens[0, : count + 1], step.chosen))
    for what, value, size in (("the id", ids, final.shape[-1]), ("the parent", step.parent, rows)):
        if value is not None and bool(((value < 0) | (value >= size)).any()):
            worst = int(value[(value < 0) | (value >= size)][0])
            raise fault(at, f"gave {what} {worst}; it must be from 0 to {size - 1}.")
    if has_broken(raw):
        return  # the model's own fault, which is reported as such
    if has_broken(final):
        raise fault(at, BROKEN)
    if step.tokens is None and step.parent is None:
        chosen = final.gather(-1, step.chosen[:, None])
        if not bool((chosen > -float("inf")).all()):
            raise fault(at, "chose a token that its own Step.final removes.")


def from_checkpoint(decoder: Decoder, generation_config: Mapping[str, Any]) -> dict[str, float]:
    """Calls `decoder.from_checkpoint` and checks the values.

    Raises:
        StrategyError: it gave a name that is no parameter of its own, or a value out of range.
    """
    from edge_tui.decoders.core.params import ParamError
    from edge_tui.decoders.core.texts import numbers

    at = decoder.from_checkpoint
    found: object = at(generation_config)
    if not isinstance(found, Mapping):
        raise fault(at, f"returned {_type(found)}; it must return values by name.")
    known = {param.name: param for param in numbers(decoder.params)}
    if unknown := [name for name in found if name not in known]:
        raise fault(at, f"gave {unknown[0]!r}, which is no number among its parameters.")
    try:
        return {name: known[name].parse(value) for name, value in found.items()}
    except ParamError as error:
        raise fault(at, f"gave a value that cannot be: {error}") from None


def ranked(decoder: Decoder, records: Records, rows: int, width: int) -> list[Choice]:
    """Calls `decoder.ranked` and checks the sequences.

    Args:
        decoder: The strategy.
        records: At least one step.
        rows: Rows that were decoded for one answer.
        width: Vocabulary `V`.

    Raises:
        StrategyError: it chose nothing among several rows, or something that is no sequence of tokens.
    """
    from edge_tui.decoders.core.decoder import Choice

    found: object = decoder.ranked(records)
    at = decoder.finish if is_own(type(decoder).ranked) else decoder.ranked
    if not isinstance(found, list) or not all(isinstance(choice, Choice) for choice in found):
        raise fault(at, f"returned {_type(found)}; it must return a Choice.")
    if rows > 1 and not found:
        raise fault(at, f"chose none of {rows} rows; it must return a Choice.")
    for choice in found:
        if not all(isinstance(token, int) and 0 <= token < width for token in choice.tokens):
            raise fault(at, f"chose tokens that there are not; they must be from 0 to {width - 1}.")
        if not isfinite(choice.score):
            raise fault(at, f"gave the score {choice.score}; it must be finite.")
    return found


class Inspection:
    """Inspects one step in full, as a context.

    Args:
        decoder: The strategy.
        state: Its state.

    Attributes:
        writes: Names of the state's tensors that the step wrote to, the token counts aside.
    """

    def __init__(self, decoder: Decoder, state: State) -> None:
        self.writes: set[str] = set()
        self._decoder = decoder
        self._names = {place(tensor): name for name, tensor in state.items() if name not in COUNTS}
        self._guards: list[tuple[Callable[..., object], Mapping[str, Tensor]]] = []

    @contextmanager
    def watch(self, lent: Mapping[str, Tensor]) -> Iterator[None]:
        """Watches `decoder.step`, which may read `lent` and write to its state alone.

        Raises:
            StrategyError: at the line that writes to something else.
        """
        token = _active.set(self)
        try:
            with watch_writes(self._note), self.guard(self._decoder.step, lent):
                yield
        finally:
            _active.reset(token)

    @contextmanager
    def guard(self, method: Callable[..., object], lent: Mapping[str, Tensor]) -> Iterator[None]:
        """Refuses operations of a method that write to the tensors lent to it, at their line."""
        with _lend(method, lent):
            self._guards.append((method, lent))
            try:
                yield
            finally:
                self._guards.pop()

    def _note(self, tensor: Tensor) -> None:
        """Notes a tensor that an operation is about to write to."""
        spot = place(tensor)
        if spot in self._names:
            self.writes.add(self._names[spot])
        for _, lent in reversed(self._guards):
            for name, other in lent.items():
                if spot and place(other) == spot:
                    method = self._guards[-1][0]  # the innermost is at work, whoever lent it
                    raise fault(method, _WRITES.format(name), _line(method))


@contextmanager
def _lend(method: Callable[..., object], lent: Mapping[str, Tensor]) -> Iterator[None]:
    """Refuses every write to lent tensors, also by ways that are no operation of torch, as through numpy."""
    copies = {name: tensor.clone() for name, tensor in lent.items()}
    yield
    for name, tensor in lent.items():
        same = (tensor == copies[name]) | ((tensor != tensor) & (copies[name] != copies[name]))
        if not bool(same.all()):
            raise fault(method, _WRITES.format(name))


def place(tensor: Tensor) -> int:
    """Returns the address of a tensor's memory, the same for all its views."""
    return tensor.untyped_storage().data_ptr()


def _line(method: Callable[..., object]) -> tuple[str, int]:
    """Finds the line that a method is at, on the stack; its first one where it is not there."""
    file, first = place_of(method)
    lines = (line for frame, line in walk_stack(sys._getframe()) if frame.f_code.co_filename == file)
    return file, next(lines, first)


@contextmanager
def _call(method: Callable[..., object], own: State, **lent: Tensor) -> Iterator[None]:
    """Checks the state that a stage's method leaves; guards the tensors lent to it in an inspected step."""
    before, inspection = dict(own), _active.get()
    lent |= {name: own[name] for name in COUNTS if name in own}
    with inspection.guard(method, lent) if inspection is not None else nullcontext():
        yield
    check_state(method, before, own)


def check_state(method: Callable[..., object], before: State, own: State) -> None:
    """Refuses a state whose names mean other tensors than before, which nobody would see again."""
    for name in before.keys() | own.keys():
        if own.get(name) is before.get(name):
            continue
        if name in before and name in own:
            raise fault(
                method, f"puts another tensor under s[{name!r}], which is lost; it must update it in place."
            )
        raise fault(method, f"adds or removes s[{name!r}]; init must return all of a state.")


def _check_tensor(
    method: Callable[..., object], name: str, value: Any, shape: tuple[int, ...], dtype: Any, device: Any
) -> None:
    """Refuses a value that is no tensor of this shape, dtype (None: any) and device."""
    import torch

    what = f" {name}" if name else ""
    kind = str(dtype).removeprefix("torch.") if dtype is not None else "a tensor"
    expected = f"{kind} {list(shape)} on {device}"
    if not isinstance(value, torch.Tensor):
        found = _type(value)
    elif value.shape == shape and dtype in (None, value.dtype) and _is_on(value.device, torch.device(device)):
        return
    else:
        found = f"{str(value.dtype).removeprefix('torch.')} {list(value.shape)} on {value.device}"
    raise fault(method, f"returned{what} {found}; it must be {expected}.")


def _is_on(device: Any, expected: Any) -> bool:
    return device.type == expected.type and expected.index in (None, device.index)


def _type(value: object) -> str:
    return "None" if value is None else f"a {type(value).__name__}"
