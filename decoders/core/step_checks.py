"""Checks what a decoder's step, proposals and answers hold, as `checks` does for its stages."""

from __future__ import annotations

from collections.abc import Mapping
from math import isfinite
from typing import TYPE_CHECKING, Any

from edge_tui.decoders.core.checks import BROKEN, check_tensor, has_broken, is_own, type_name
from edge_tui.decoders.core.decoder import Decoder, Step
from edge_tui.decoders.core.errors import fault
from edge_tui.decoders.core.params import ParamError
from edge_tui.decoders.core.records import Choice, Records

if TYPE_CHECKING:
    from torch import Tensor


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

    at = decoder.step
    if not isinstance(step, Step):
        raise fault(at, f"returned {type_name(step)}; it must return a Step.")
    if step.parent is not None and not positions and not decoder.owns_eos:
        raise fault(at, "gave Step.parent, which only a strategy with owns_eos may.")
    places = (rows, positions) if positions else (rows,)
    unread = ("parent", "done", "candidates", "removing_stage") if positions else ("accepted", "tokens")
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
        ("margin", places, torch.float32),
        ("removing_stage", (rows, width), torch.int8),
    ):
        value = getattr(step, name)
        may_lack = name in ("parent", "done", "margin", "removing_stage")
        if name not in unread and (value is not None or not may_lack):
            check_tensor(at, f"Step.{name}", value, shape, dtype, device)
    for name, shape in (("extras", places), ("candidates", (rows, width))):
        columns: Mapping[str, Tensor] = getattr(step, name)
        declared = sorted(column.name for column in decoder.own_columns)
        if sorted(columns) != declared and (columns or name == "extras"):
            given = sorted(columns)
            raise fault(at, f"gave Step.{name} named {given}; they must be its columns, {declared}.")
        for column, tensor in columns.items():
            check_tensor(at, f"Step.{name} {column!r}", tensor, shape, None, device)


def check_proposal(decoder: Decoder, proposed: Tensor, rows: int, device: object) -> None:
    """Checks a proposal: int64 `[R]`."""
    import torch

    check_tensor(decoder.propose, "", proposed, (rows,), torch.int64, device)


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
    from edge_tui.decoders.core.texts import numbers

    at = decoder.from_checkpoint
    found: object = at(generation_config)
    if not isinstance(found, Mapping):
        raise fault(at, f"returned {type_name(found)}; it must return values by name.")
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
    found: object = decoder.ranked(records)
    at = decoder.finish if is_own(type(decoder).ranked) else decoder.ranked
    if not isinstance(found, list) or not all(isinstance(choice, Choice) for choice in found):
        raise fault(at, f"returned {type_name(found)}; it must return a Choice.")
    if rows > 1 and not found:
        raise fault(at, f"chose none of {rows} rows; it must return a Choice.")
    for choice in found:
        if not all(isinstance(token, int) and 0 <= token < width for token in choice.tokens):
            raise fault(at, f"chose tokens that there are not; they must be from 0 to {width - 1}.")
        if not isfinite(choice.score):
            raise fault(at, f"gave the score {choice.score}; it must be finite.")
    return found
