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
from traceback import walk_stack
from typing import TYPE_CHECKING, Any

from edge_tui.decoders.core.column import names_of
from edge_tui.decoders.core.errors import fault, place_of
from edge_tui.decoders.core.tokens import TOKENS, keys_of
from edge_tui.decoders.core.writes import watch_writes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from torch import Tensor

    from edge_tui.decoders.core.params import Params
    from edge_tui.decoders.core.random import Rng
    from edge_tui.decoders.core.stage import Env, Stage, State, Token

_active: ContextVar[Inspection | None] = ContextVar("inspection", default=None)


def is_own(kind: type | Callable[..., object]) -> bool:
    """Tells whether a class or method belongs to this package, whose strategies have references."""
    return (kind.__module__ or "").startswith("edge_tui.decoders.")  # a notebook's functions have none


def apply(stage: Stage, z: Tensor, p: Params, own: State, rng: Rng) -> Tensor:
    """Calls `stage.apply` and checks its result.

    Raises:
        StrategyError: it gave no logits of the same kind, or changed what it must not.
    """
    inspection = _active.get()
    if inspection is None and is_own(type(stage)):
        return stage.apply(z, p, own, rng)
    with _call(stage, stage.apply, own, z=z):
        out = stage.apply(z, p, own, rng)
    check_tensor(stage.apply, "", out, z.shape, z.dtype, z.device)
    if inspection is not None and not has_broken(z) and has_broken(out):
        raise fault(stage.apply, BROKEN)
    return out


def observe(stage: Stage, own: State, p: Params, token: Token) -> None:
    """Calls `stage.observe` and checks the state.

    Raises:
        StrategyError: it changed what it must not.
    """
    if _active.get() is None and is_own(type(stage)):
        stage.observe(own, p, token)
        return
    lent = {f"token.{name}": getattr(token, name) for name in ("id", "raw", "final", "step")}
    with _call(stage, stage.observe, own, **lent):
        stage.observe(own, p, token)


def init(method: Callable[[Env], object], env: Env) -> State:
    """Calls `init` of a stage or decoder and checks the state.

    Raises:
        StrategyError: it gave no state: row-first tensors by name, on the run's device.
    """
    return _allocate(method, env, row_first=True)


def init_stage(stage: Stage, env: Env) -> State:
    """Calls `stage.init` and checks the state, and that it holds the stage's columns.

    Raises:
        StrategyError: it is no state, or a column is no float32 `[R, 1]` in it.
    """
    import torch

    state = init(stage.init, env)
    for name in names_of(stage.columns):
        if name not in state:
            raise fault(stage.init, f"returned no {name!r}, which is one of its columns.")
        check_tensor(stage.init, name, state[name], (env.rows, 1), torch.float32, env.device)
    return state


def constants(method: Callable[[Env], object], env: Env) -> State:
    """Calls `constants` of a stage or decoder and checks them.

    Raises:
        StrategyError: it gave no tensors by name, on the run's device.
    """
    return _allocate(method, env, row_first=False)


def _allocate(method: Callable[[Env], object], env: Env, *, row_first: bool) -> dict[str, Tensor]:
    """Calls a method that makes tensors by name, and checks them."""
    lent = {} if is_own(method) else {"env.prompt": env.prompt, "env.eos": env.eos}
    with _lend(method, lent):
        state = method(env)
    if not isinstance(state, dict) or not all(isinstance(name, str) for name in state):
        raise fault(method, f"returned {type_name(state)}; it must return a dictionary of tensors by name.")
    for name, tensor in state.items():
        shape = getattr(tensor, "shape", ())
        expected = (env.rows, *shape[1:]) if row_first else tuple(shape)
        check_tensor(method, name, tensor, expected, None, env.device)
    return state


_WRITES = "writes to {}, which is not its own; it must make a new tensor."
BROKEN = "gave NaN or +inf; it must give finite logits, and −inf for what it removes."


def has_broken(z: Tensor) -> bool:
    """Tells whether logits hold NaN or +inf; waits for the device."""
    peak = z.amax()
    return not bool(peak < float("inf"))  # NaN spreads, and compares false


class Inspection:
    """Inspects one step in full, as a context.

    Args:
        step: The strategy's method.
        state: Its state.

    Attributes:
        writes: Names of the state's tensors that the step wrote to outside `observe`, the tokens aside.
        learning: True while `observe` runs.
    """

    def __init__(self, step: Callable[..., object], state: State) -> None:
        self.writes: set[str] = set()
        self.learning = False
        self._step = step
        self._names = {place(tensor): name for name, tensor in state.items() if name not in TOKENS}
        self._guards: list[tuple[Callable[..., object], Mapping[str, Tensor]]] = []

    @contextmanager
    def watch(self, lent: Mapping[str, Tensor]) -> Iterator[None]:
        """Watches the step, which may read `lent` and write to its state alone.

        Raises:
            StrategyError: at the line that writes to something else.
        """
        token = _active.set(self)
        try:
            with watch_writes(self._note), self.guard(self._step, lent):
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
        if spot in self._names and not self.learning:
            self.writes.add(self._names[spot])
        for _, lent in reversed(self._guards):
            for name, other in lent.items():
                if spot and place(other) == spot:
                    method = self._guards[-1][0]  # the innermost is at work, whoever lent it
                    raise fault(method, _WRITES.format(name), _line(method))


@contextmanager
def learning() -> Iterator[None]:
    """Marks the writes inside as what a strategy learns, which a run that goes on makes anew."""
    inspection = _active.get()
    if inspection is None:
        yield
        return
    inspection.learning = True
    try:
        yield
    finally:
        inspection.learning = False


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
def _call(stage: Stage, method: Callable[..., object], own: State, **lent: Tensor) -> Iterator[None]:
    """Checks the state that a stage's method leaves; guards the tensors lent to it in an inspected step."""
    before, inspection = dict(own), _active.get()
    lent |= {name: own[name] for name in keys_of(stage.needs)}
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


def check_tensor(
    method: Callable[..., object], name: str, value: Any, shape: tuple[int, ...], dtype: Any, device: Any
) -> None:
    """Checks a tensor's shape, type and device.

    Raises:
        StrategyError: it is another, or no tensor.
    """
    import torch

    what = f" {name}" if name else ""
    kind = str(dtype).removeprefix("torch.") if dtype is not None else "a tensor"
    expected = f"{kind} {list(shape)} on {device}"
    if not isinstance(value, torch.Tensor):
        found = type_name(value)
    elif value.shape == shape and dtype in (None, value.dtype) and _is_on(value.device, torch.device(device)):
        return
    else:
        found = f"{str(value.dtype).removeprefix('torch.')} {list(value.shape)} on {value.device}"
    raise fault(method, f"returned{what} {found}; it must be {expected}.")


def _is_on(device: Any, expected: Any) -> bool:
    return device.type == expected.type and expected.index in (None, device.index)


def type_name(value: object) -> str:
    """Names a value's type in an error."""
    return "None" if value is None else f"a {type(value).__name__}"
