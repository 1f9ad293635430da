"""Runs a causal language model by transformers' own code.

Slower than the flat decoder, but it knows every architecture that transformers knows. On a GPU keys and
values lie in buffers that keep their addresses (`static_context`), so that steps are captured, where a proof
at load shows that this gives the same logits; elsewhere in transformers' own cache (`groups`).
"""

from __future__ import annotations

import inspect
import sys
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch

from edge_tui.decoders.base import Needs, Output
from edge_tui.engine.checkpoints.weight_files import WeightsError
from edge_tui.engine.models.base import Caps, ModelInfo
from edge_tui.engine.models.capacity import CHUNK
from edge_tui.engine.models.fused_norms import fuse_norms
from edge_tui.engine.models.groups import Group, GroupedContext
from edge_tui.engine.models.layer_access import layer_access
from edge_tui.engine.models.layer_states import PastStates
from edge_tui.engine.models.self_check import Deviation, Waits, captured_deviation, deviation
from edge_tui.engine.models.static_context import CacheLayout, NotStatic, StaticContext
from edge_tui.engine.ops.current_device import entered, on_own_device
from edge_tui.errors import Cancelled
from edge_tui.util import logs

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    from edge_tui.engine.models.base import Context

_KERNELS = "operation by operation, over fixed buffers"
CROPPABLE = ("DynamicLayer", "DynamicIndexedLayer", "DummyLayer")
"""Cache layers that can forget their last positions."""


class TransformersModel:
    """Runs a transformers module as a `LanguageModel`; see `load_transformers`."""

    def __init__(self, module: Any, info: ModelInfo) -> None:
        """Checks that the module decodes step by step, and measures `info.kv_bytes`."""
        self._module = module
        inputs = inspect.signature(module.forward).parameters
        self._cache_name = "past_key_values" if "past_key_values" in inputs else "cache_params"
        self._takes_logits_to_keep = "logits_to_keep" in inputs
        self._takes_positions = "position_ids" in inputs
        text = module.config.get_text_config(decoder=True)
        # Steps launched ahead may go beyond the last position there is; what they give is never looked at.
        self._last = int(getattr(text, "max_position_embeddings", 0) or sys.maxsize) - 1
        layers = self._new_cache().layers
        fixed = {type(layer).__name__ for layer in layers} - set(CROPPABLE)
        self.recurrent = bool(fixed)
        name, reasons = type(module).__name__, []
        _fix_rotation(module)
        if module.device.type == "cuda":  # launches cost nothing elsewhere
            fuse_norms(module)
        self._access = layer_access(module)
        self._layout: CacheLayout | None = None
        self.caps, self.info = Caps(rewind=not fixed), info
        self.info = replace(info, kv_bytes=self._probe(), layers=self._access.layers)
        check = self._check(name)
        several = not check.wrong[1]
        rewind = several and not self.recurrent
        if not rewind:
            reasons.append(f"{name} keeps a running state, which cannot be rewound.")
        captured = module.device.type == "cuda"
        if captured and (why := self._why_uncaptured()):
            captured, self._layout = False, None
            reasons.append(f"Steps of {name} are launched one by one, not captured, and so slower: {why}.")
        if not several:
            reasons.append(
                f"{name} decodes one row at a time: as two rows its logits are {check.two:.2g} of their "
                f"spread off what one full forward gives ({check.one:.2g} as one row, {check.limit:.2g} is "
                "rounding)."
            )
        access = self._access
        self.caps = Caps(
            rewind=rewind,
            fork=several,
            hidden=access.layers > 0,
            early=access.head is not None and access.norm is not None,
            reason=" ".join(reasons),
        )
        if captured:
            self.caps = replace(self.caps, capture=True, kernels=_KERNELS)

    def use_static(self) -> None:
        """Lets contexts that are opened from now on be static ones; a proof at load does so on a GPU.

        Raises:
            NotStatic: the module's cache holds something else than keys and values by position.
        """
        if self.recurrent:
            raise NotStatic("it keeps a running state")
        self._layout = CacheLayout.of(self._cache_of_one(), self._module.device)

    @on_own_device
    def open(
        self, rows: int, capacity: int, total: int = 0, past: bool = False
    ) -> GroupedContext | StaticContext:
        """Opens an empty context for `rows` sequences of at most `capacity` positions, for any run."""
        device = self._module.device
        context: GroupedContext | StaticContext
        if self._layout is not None:
            context = StaticContext(rows, capacity, self._layout)
        else:
            context = GroupedContext(rows, capacity, str(device), self._new_cache, self.caps.rewind)
        if past:
            shape = rows, capacity, self._access.width
            context.past = PastStates(torch.zeros(shape, dtype=self._module.dtype, device=device))
        return context

    def notice(self, total: int) -> str:
        """Returns "": contexts end where a rotary embedding would change."""
        return ""

    @torch.inference_mode()
    @on_own_device
    def forward(self, ctx: Context, ids: Tensor) -> Output:
        """Appends `ids` int64 `[R, K]` to the context and returns logits `[R, K, V]`: one step.

        Raises:
            ContextFull: they do not fit.
        """
        k = ids.shape[1]
        if isinstance(ctx, StaticContext):
            return self._append(ctx, ids, exact=False)
        assert isinstance(ctx, GroupedContext), "a context of another model"
        ctx.reserve(k)
        needs = _needs_of(ctx)
        each = [self._feed(group, _rows(ids, group, ctx.rows), needs) for group in ctx.groups]
        ctx.length += k
        return _output(ctx, {name: _gather(ctx, [one[name] for one in each]) for name in each[0]}, k)

    @torch.inference_mode()
    @on_own_device
    def prefill(
        self,
        ctx: Context,
        ids: Tensor,
        chunk: int = CHUNK,
        progress: Callable[[int, int], None] | None = None,
        cancelled: Callable[[], bool] | None = None,
    ) -> Output:
        """Reads a prompt, in chunks, on top of what the context already holds.

        Arguments, result and errors are those of `LanguageModel.prefill`. A recurrent model reads a fresh
        prompt in one piece, because its scan cannot start from a state.
        """
        total, output = ids.shape[1], Output(torch.empty(0))
        if isinstance(ctx, StaticContext):
            ctx.lengths()
            ctx.reserve(total)
            if total == 1:  # as a step has it
                ctx.widen(2)
                known = None if ctx.needs.layers else ctx.replay
                return Output(known(ids)) if known is not None else self._append(ctx, ids, exact=False)
            size = chunk
        else:
            assert isinstance(ctx, GroupedContext), "a context of another model"
            ctx.reserve(total)
            size = total if self.recurrent and not ctx.groups[0].length else chunk
        for done in range(0, total, size):
            if cancelled is not None and cancelled():
                raise Cancelled
            piece = ids[:, done : done + size]
            if isinstance(ctx, StaticContext):
                output = self._append(ctx, piece, exact=True)
            else:
                [group] = ctx.groups
                tensors = self._feed(group, piece, _needs_of(ctx), last=True)
                ctx.length += piece.shape[1]
                output = _output(ctx, tensors, piece.shape[1]).last()
            if progress is not None:
                progress(done + piece.shape[1], total)
        return output

    @on_own_device
    def release(self) -> None:
        """Drops the weights; the caller returns the memory. The model is unusable afterwards."""
        self._module = None

    def _feed(self, group: Group, ids: Tensor, needs: Needs, last: bool = False) -> dict[str, Tensor]:
        """Appends ids to a group's cache.

        Returns:
            Fields of `Output`, and `past` the new positions' states `[R, K, D]`. With `last` the others hold
            the last position only.
        """
        if self.recurrent and group.length and ids.shape[1] > 1:
            steps = [self._feed(group, ids[:, i : i + 1], needs) for i in range(ids.shape[1])]
            joined = {name: torch.cat([step[name] for step in steps], 1) for name in steps[0]}
            return {n: t if n == "past" else t[:, -1:] for n, t in joined.items()} if last else joined
        positions = torch.arange(group.length, group.length + ids.shape[1], device=ids.device)
        tensors = self._call(group.cache, ids, positions, needs, last)
        group.length += ids.shape[1]
        return tensors

    def _append(self, ctx: StaticContext, ids: Tensor, *, exact: bool) -> Output:
        """Appends ids to a static context; with `exact`, a prompt's, of which the last position counts."""
        k = ids.shape[1]
        positions = ctx.begin(k, exact)
        tensors = self._call(ctx.cache, ids, positions, _needs_of(ctx), last=exact)
        ctx.advance(k)
        return ctx.output(tensors, k)

    def _call(
        self, cache: Any, ids: Tensor, positions: Tensor, needs: Needs, last: bool
    ) -> dict[str, Tensor]:
        """Runs the module; result as of `_feed`. `positions`: int64 `[K]`."""
        if self._module is None:
            raise RuntimeError(f"{self.info.name} has been released.")
        extra: dict[str, Any] = {"logits_to_keep": 1} if last and self._takes_logits_to_keep else {}
        if self._takes_positions:
            extra["position_ids"] = positions.clamp(max=self._last).expand(ids.shape)
        extra[self._cache_name] = cache
        if needs.layers:
            extra["output_hidden_states"] = True
        result = self._module(input_ids=ids, use_cache=True, **extra)
        at = slice(-1, None) if last else slice(None)
        tensors = {"logits": result.logits[:, at]}
        if needs.past:
            tensors["past"] = result.hidden_states[-1]
        if needs.hidden:
            tensors["hidden"] = torch.stack([result.hidden_states[i][:, at] for i in needs.hidden], 2)
        if needs.early:
            tensors["early"] = self._early(
                torch.stack([result.hidden_states[i][:, at] for i in needs.early], 2), needs
            )
        return tensors

    def _early(self, states: Tensor, needs: Needs) -> Tensor:
        """Makes early-exit logits of states `[R, K, E, D]` in one product of the head."""
        head, norm = self._access.head, self._access.norm
        assert head is not None, "Caps.early is False"
        assert norm is not None, "Caps.early is False"
        return head(norm(states) if needs.early_norm else states)

    def _check(self, name: str) -> Deviation:
        """Holds cached steps against one uncached forward, and settles on how they come out right.

        Where they do not, positions are left out, or ids are fed singly after the first ones, which is what a
        state asks for that no cache layer shows.

        Raises:
            WeightsError: a single row comes out wrong in every way.
        """
        ways = dict.fromkeys(
            [(self._takes_positions, self.recurrent), (False, self.recurrent), (self._takes_positions, True)]
        )
        results: dict[tuple[bool, bool], Deviation] = {}
        for way in ways:
            self._takes_positions, self.recurrent = way
            try:
                results[way] = deviation(self, self._module)
            except (IndexError, RuntimeError, TypeError, ValueError):
                if not results:
                    raise
            else:
                if results[way].wrong == (False, False):
                    break
        (self._takes_positions, self.recurrent), check = min(results.items(), key=lambda item: item[1].wrong)
        if check.wrong[0]:
            raise WeightsError(
                f"{name} cannot be decoded step by step: with its cache the logits are {check.one:.2g} of "
                f"their spread off what one full forward gives (as two rows {check.two:.2g}), where "
                f"{check.limit:.2g} is rounding; choose a model of another architecture."
            )
        return check

    def _new_cache(self) -> Any:
        """Makes an empty cache whose windowed layers keep everything, to be rewound; masks hide it."""
        from transformers import DynamicCache
        from transformers.cache_utils import DynamicLayer

        cache = DynamicCache(config=self._module.config)
        for i, layer in enumerate(cache.layers):
            if type(layer).__name__ == "DynamicSlidingWindowLayer":
                cache.layers[i] = DynamicLayer()
        return cache

    @torch.inference_mode()
    def _cache_of_one(self) -> Any:
        """Runs one token and returns the cache."""
        group = Group([0], 0, self._new_cache())
        self._feed(group, torch.zeros(1, 1, dtype=torch.int64, device=self._module.device), Needs())
        return group.cache

    def _probe(self) -> int:
        """Counts the bytes that a position takes in the cache."""
        layers = self._cache_of_one().layers
        tensors = [getattr(layer, name, None) for layer in layers for name in ("keys", "values")]
        return sum(t.numel() * t.element_size() for t in tensors if t is not None)

    def _why_uncaptured(self) -> str:
        """Holds steps over static buffers, and captured ones, against an uncached forward.

        Returns:
            Why they are not right, or not possible; "" where they are.
        """
        failure = "it does not run over fixed buffers"
        try:
            self.use_static()
            eager = deviation(self, self._module)
            if eager.wrong[0] or eager.wrong[1]:
                return (
                    f"over fixed buffers its logits are {max(eager.one, eager.two):.2g} of their spread off"
                )
            failure = "its step cannot be captured"
            with entered(self.info.device):
                off = captured_deviation(self, self._module)
        except NotStatic as error:
            return str(error)
        except Waits:
            return "its step waits for the device"
        except Exception as error:  # whatever a modelling library raises
            return f"{failure} ({logs.first_line(error).rstrip('.')})"
        return "" if off <= eager.limit else f"captured, its logits are {off:.2g} of their spread off"


def _fix_rotation(module: Any) -> None:
    """Keeps dynamic rotary embeddings from asking the device, at each step, whether it is time to change.

    They would beyond the model's own limit, where every context ends.
    """
    for part in module.modules():
        if getattr(part, "rope_type", None) == "dynamic":
            part.rope_type = "fixed"


def _rows(ids: Tensor, group: Group, rows: int) -> Tensor:
    return ids if group.rows == list(range(rows)) else ids[group.rows]


def _gather(ctx: GroupedContext, tensors: list[Tensor]) -> Tensor:
    """Joins the groups' tensors, rows in their order."""
    order = [row for group in ctx.groups for row in group.rows]
    if len(tensors) == 1 and order == list(range(ctx.rows)):
        return tensors[0]
    return torch.cat(tensors)[sorted(range(ctx.rows), key=order.__getitem__)]


def _needs_of(ctx: Context) -> Needs:
    """Returns what a forward has to give: past states too where the context keeps them."""
    return replace(ctx.needs, past=ctx.past is not None)


def _output(ctx: GroupedContext, tensors: dict[str, Tensor], k: int) -> Output:
    """Stores the `k` newest positions' states in the context, and builds a forward's result."""
    past = None
    if ctx.past is not None:
        ctx.past.append(tensors.pop("past"), ctx.length, k)
        past = ctx.past.states if ctx.needs.past else None
    return Output(**tensors, past=past, past_length=None if past is None else ctx.length)
