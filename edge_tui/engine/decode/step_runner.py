"""Runs decode steps on tensors that keep their addresses: a forward of every stream, then a choice.

`forward` appends the tokens chosen last to every stream and computes its next logits. `sample_and_record`
refreshes the parameters, calls the strategy and lays out the record of its decision. Each piece runs as it
stands or captured as a CUDA graph (`cuda_graphs`), once for all runs that decode the same way.

On a GPU a step leaves links out whose parameters are at their neutral values (`Params.left_out`), so each
set of them has fused kernels and graphs of its own; those used lately are kept.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from edge_tui.decoders.base import Decoder, Env, Output
from edge_tui.decoders.core.random import Rng, key_of
from edge_tui.engine import seeds
from edge_tui.engine.decode.cpu_trace import TracedChoice
from edge_tui.engine.decode.host_copies import to_device
from edge_tui.engine.decode.inspection import StrategyInspector
from edge_tui.engine.decode.param_table import ParamTable
from edge_tui.engine.decode.ring import Ring
from edge_tui.engine.decode.step_pieces import Piece
from edge_tui.engine.decode.step_record import StepBuffers, build_record, clone_logits_views, cut, sample
from edge_tui.engine.models.base import CapturableContext
from edge_tui.engine.ops import row_kernels
from edge_tui.engine.ops.choose import fused_step, has_own_kernels
from edge_tui.engine.ops.choose_plan import idle_links
from edge_tui.engine.ops.current_device import computing, entered
from edge_tui.engine.ops.triton.availability import is_gpu

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import Tensor

    from edge_tui.decoders.base import Params, State
    from edge_tui.decoders.core.errors import StrategyError
    from edge_tui.engine.decode.step_pieces import CapturedStep
    from edge_tui.engine.decode.step_record import Sampled
    from edge_tui.engine.decode.stream_groups import StreamGroup
    from edge_tui.engine.models.base import Context
    from edge_tui.engine.ops.triton.choose_parts import FusedStep


_KEPT = 4
"""Most sets of links left out whose kernels and graphs are kept."""


class StepRunner:
    """Holds the parameters, random numbers, contexts and state of one way to decode, and runs its steps.

    A subclass extends `_setup`.

    Args:
        decoder: The strategy.
        groups: The streams by the forwards that compute them, the main one's first, on contexts that hold
            the prompts.
        values: Parameters that the table starts with.
        rows: Rows decoded side by side.
        eos: Ids that end a sequence.
        width: Vocabulary `V` that every stream is cut to.
    """

    leaves_out = True
    """True leaves links at neutral values out of the steps of a GPU."""

    def __init__(
        self,
        decoder: Decoder,
        groups: Sequence[StreamGroup],
        values: Mapping[str, float],
        rows: int,
        eos: tuple[int, ...],
        width: int,
    ) -> None:
        import torch

        self.decoder = decoder
        self.groups = groups
        self.roots = [group.root for group in groups]
        """The contexts that the prompts are read into."""
        self.needs = self.roots[0].needs
        """Outputs of the main stream's forwards beside logits."""
        self.rows = rows
        self.eos = eos
        self.num_draft_tokens = 0
        """Tokens that a step proposes."""
        self.proposing = True
        """True lets a strategy propose tokens that does so."""
        self.logits_current = True
        """True once `outputs` are the logits after the tokens chosen last."""
        self._graphs: dict[tuple[bool, frozenset[int], tuple[int, ...]], CapturedStep] = {}
        """By whether steps propose, the links that they leave out, and what attention spans."""
        self._capturable: list[CapturableContext] = []
        """The contexts of this run that graphs can be made of."""
        self.spans: tuple[int, ...] = ()
        """Positions that attention spans in each of them."""
        self.models = [group.model for group in groups]
        """The model of each group."""
        self.device = self.models[0].info.device
        self.is_one_graph = not any(group.is_away for group in groups)
        """True captures a choice and the forward after it as one graph, a run's first choice included."""
        row_kernels.provide(self.device)
        self.outputs: dict[str, Output] = {}
        idle = partial(idle_links, decoder) if self.may_leave_out() else None
        self.table = ParamTable(decoder.params, values, rows, self.device, idle)
        self.ring = Ring(self.device)
        self._width = width
        zeros = partial(torch.zeros, device=self.device)
        self.buffers = StepBuffers(
            block=self.table.block,
            key=zeros(rows, dtype=torch.int64),
            rows=torch.arange(rows, device=self.device),
            step=zeros(1, dtype=torch.int64),
            eos=to_device(eos, torch.int64, self.device),
            never=zeros(rows, dtype=torch.bool),
            tokens=zeros(rows, dtype=torch.int64),
            parent=torch.arange(rows, device=self.device),
        )
        self._kernels_of: dict[frozenset[int], FusedStep | None] = {}
        """Fused steps by the links that they leave out."""
        self._sampled: Sampled | None = None
        """The step sampled last, and what its record reads."""
        self._state: State = {}
        self._inspector = StrategyInspector(decoder)
        self._rows_permuted = False
        self._traced: TracedChoice | None = None
        self._traceable = self.device == "cpu"
        self._setup(values)

    def _setup(self, values: Mapping[str, float]) -> None:
        """Allocates what a subclass needs beside."""

    def may_leave_out(self) -> bool:
        """Tells whether steps leave links out; kernels of one strategy alone know neutral values anyway."""
        return self.leaves_out and is_gpu(self.device) and not has_own_kernels(self.decoder)

    @property
    def graphs(self) -> CapturedStep | None:
        """The captured pieces of the present way to step; None before."""
        return self._graphs.get((self.proposing, self.table.params.left_out, self.spans))

    @graphs.setter
    def graphs(self, graphs: CapturedStep) -> None:
        self._graphs[self.proposing, self.table.params.left_out, self.spans] = graphs

    @property
    def has_graphs(self) -> bool:
        """True where steps of some kind have been captured."""
        return bool(self._graphs)

    def forget_graphs(self) -> None:
        """Drops what was captured."""
        self._graphs.clear()

    @property
    def _fused(self) -> FusedStep | None:
        """The fused step of the links that are not left out; None where there is none."""
        left_out = self.table.params.left_out
        if left_out not in self._kernels_of:
            tokens, parent = self.buffers.tokens, self.buffers.parent
            self._kernels_of[left_out] = fused_step(self.decoder, self._width, tokens, parent, left_out)
        return self._kernels_of[left_out]

    def publish(self) -> None:
        """Lets steps use changes of parameters that were held back; no step may be under way."""
        self.table.publish()
        self.table.refresh()
        left_out = self.table.params.left_out
        if left_out in self._kernels_of:  # the latest stands last
            self._kernels_of[left_out] = self._kernels_of.pop(left_out)
        for old in list(self._kernels_of)[:-_KEPT]:
            del self._kernels_of[old]
            self._graphs = {key: graphs for key, graphs in self._graphs.items() if key[1] != old}
        self._read_outputs(self.outputs)

    def widen(self) -> bool:
        """Lets attention span what the next step needs; returns True where that is another span than before.

        A step appends once, or twice where the logits after the last tokens are still to be computed.
        """
        need = 2 * self.tokens_per_step
        spans = tuple(context.widen(need) for context in self._capturable)
        if spans == self.spans:
            return False
        self.spans = spans
        self._read_outputs(self.outputs)
        return True

    def _read_outputs(self, outputs: Mapping[str, Output]) -> None:
        """Makes logits those of the next choice: graphs read them at fixed addresses."""
        if self.graphs is None or not self.is_one_graph:
            self.outputs = dict(outputs)
            return
        self.outputs = dict(self.graphs.outputs)
        for name, output in outputs.items():
            if output is not self.outputs[name]:
                _overwrite(self.outputs[name], output)

    def begin(self, env: Env, outputs: Mapping[str, Output], seed: int) -> None:
        """Starts a run.

        Args:
            env: The argument of the strategy's `init`.
            outputs: Each stream's logits `[1, 1, V]` after the prompt, which its root context holds, and what
                the main stream gives beside them.
            seed: Of the run; each sample has its own of it, hypotheses of a search all have this one.
        """
        import torch

        self.table.restart(env.values)
        self.ring.restart()
        self.logits_current = True
        self._traced = None
        self.buffers.step.fill_(env.prefix)
        self.buffers.key.copy_(torch.tensor(self._keys(seed)), non_blocking=True)
        state = self._inspector.begin(env, bool(self._graphs))
        if self._graphs and _same_layout(state, self._state):
            for name, tensor in state.items():
                self._state[name].copy_(tensor)
        else:
            self._state = state
            self.forget_graphs()
        for group in self.groups:
            with entered(group.model.info.device):
                group.context = self._spread_context(group.root, group.context)
        contexts = [group.context for group in self.groups]
        self._capturable = [context for context in contexts if isinstance(context, CapturableContext)]
        self.widen()
        outputs = self._at_home(outputs)
        self._read_outputs({name: _spread(output, self.rows) for name, output in outputs.items()})

    def _keys(self, seed: int) -> list[int]:
        """Computes the key of each row's random numbers."""
        samples = [0] * self.rows if self.decoder.kind == "search" else range(self.rows)
        return [key_of(seeds.of_sample(seed, sample)) for sample in samples]

    def restart_state(self, env: Env) -> None:
        """Starts the strategy's state anew, at the same addresses."""
        for name, tensor in self._inspector.begin(env, bool(self._graphs)).items():
            self._state[name].copy_(tensor)

    @property
    def is_own(self) -> bool:
        """True where the strategy and its stages are our own."""
        return self._inspector.is_own

    @property
    def state(self) -> State:
        """The strategy's state and constants."""
        return self._state

    def restore_state(self, state: State) -> None:
        """Writes tensors of the strategy's state, at the same addresses."""
        for name, tensor in state.items():
            self._state[name].copy_(tensor, non_blocking=True)

    def arguments(self) -> tuple[dict[str, Output], State, Params, Rng]:
        """Returns what the strategy's next step is called with: logits, state, parameters, random numbers."""
        outs = {name: self._cut(output) for name, output in self.outputs.items()}
        return outs, self._state, self.table.params, Rng(self.buffers.key, self.buffers.step)

    def force(self, token: int) -> None:
        """Takes a given token in every row: the strategy learns it as if it had chosen it."""
        outs, state, params, rng = self.arguments()
        raw = outs[self.decoder.streams[0].name].logits[:, -1]
        final = self.decoder.final(outs, state, params, rng)
        self.buffers.tokens.fill_(token)
        self.decoder.take(self.buffers.tokens, final, raw, state, params, rng)
        self.buffers.step.add_(1)
        self.forward()

    @property
    def tokens(self) -> Tensor:
        """int64 `[R, 1]`, the tokens chosen last."""
        return self.buffers.tokens[:, None]

    def _spread_context(self, root: Context, before: Context) -> Context:
        """Returns the root itself, or a fork of it: that of the run before, if graphs know its addresses."""
        if self.rows == 1:
            return root
        if isinstance(before, CapturableContext) and self._graphs and before.refork():
            return before
        self.forget_graphs()
        return root.fork(self.rows)

    @property
    def tokens_per_step(self) -> int:
        """Positions that one `forward` adds to each context."""
        return self.num_draft_tokens + 1 if self.proposing else 1

    def forwards(self) -> list[Piece]:
        """Lists the pieces of `forward`: models that are away compute beside those that are not."""
        away, what = [each for each in self.groups if each.is_away], (self.tokens, self._parent, self.spans)
        return [
            *(Piece(partial(each.start, *what), None, False) for each in away),
            *(Piece(partial(self._forward, each), each) for each in self.groups if not each.is_away),
            *(Piece(partial(self._fetch, each), None, False) for each in away),
        ]

    def forward(self) -> None:
        """Appends the tokens chosen last to every stream and computes its next logits."""
        for piece in self.forwards():
            piece.run()

    def _forward(self, group: StreamGroup) -> None:
        """Does `forward` for the streams of one group, which touch a context of their own."""
        self.outputs.update(group.split(group.forward(self.tokens, self._parent)))

    def _fetch(self, group: StreamGroup) -> None:
        """Takes what a model that is away has computed."""
        self.outputs.update(group.split(group.fetch()))

    @property
    def _parent(self) -> Tensor | None:
        """The rows that the tokens chosen last continue; None where rows stay."""
        return self.buffers.parent if self._rows_permuted else None

    def _at_home(self, outputs: Mapping[str, Output]) -> dict[str, Output]:
        """Brings each stream's output to the strategy's device."""
        return {name: group.at_home(outputs[name]) for group in self.groups for name in group.names}

    def sample(self, keep_logits: bool = False) -> None:
        """Lets the strategy choose, and writes the chosen tokens to the buffers.

        Args:
            keep_logits: Clone what the record needs, because the next forward overwrites the logits.
        """
        outs = {name: self._cut(output) for name, output in self.outputs.items()}
        fused = self._fused
        choose = fused or self._inspector.step
        sampled = sample(self.decoder, choose, outs, self._state, self.table.params, self.buffers)
        if fused is not None:
            sampled = replace(sampled, raw=fused.raw)
        elif keep_logits:
            sampled = clone_logits_views(sampled, outs)
        self._sampled = sampled
        self._rows_permuted = sampled.step.parent is not None

    def build_record(self) -> tuple[Tensor, Tensor]:
        """Computes the record of the step sampled last; `step_record.build_record` describes it."""
        assert self._sampled is not None, "nothing was sampled yet"
        if (fused := self._fused) is not None:
            fused.finish()
        return build_record(self.decoder, self._sampled, self._state, self.buffers)

    def diagnose(self, index: int, is_id: bool) -> StrategyError:
        """Finds what broke the choice of token `index`; see `StrategyInspector.diagnose`."""
        with computing(self.device):
            return self._inspector.diagnose(*self.arguments(), index, is_id)

    def sample_and_record(self) -> None:
        """Chooses and records: in one traced call where that is possible, and a step of its kind has run."""
        self.logits_current = False
        self.table.refresh()
        outs = self.outputs
        if self._traced is not None and (record := self._traced(outs)) is not None:
            self.ring.write(*record)
            return
        self.sample()
        self.ring.write(*self.build_record())
        if self._traced is None and self._traceable:
            self._traced = TracedChoice(self.decoder, self._state, self.table, self.buffers, self._width)
        elif self._traced is not None and not self._traced.is_possible:
            self._traced, self._traceable = None, False
        if self._traced is not None:
            self._traced.note(outs)

    def _cut(self, output: Output) -> Output:
        """Cuts logits to the vocabulary that all streams share, in float32.

        Embeddings are often padded to a round number; padded entries belong to no token.
        """
        return cut(output, self._width)


def _spread(output: Output, rows: int) -> Output:
    """Expands one row's output to every row."""
    tensors = output.tensors().items()
    return Output(**{name: tensor.expand(rows, *tensor.shape[1:]) for name, tensor in tensors})


def _overwrite(output: Output, other: Output) -> None:
    """Copies another output into the tensors of one; the past lies in the contexts."""
    tensors = output.tensors()
    for name in tensors.keys() - {"past", "past_length"}:
        tensors[name].copy_(getattr(other, name))


def _same_layout(a: State, b: State) -> bool:
    """Tells whether two states have tensors of the same names, shapes and types."""
    return a.keys() == b.keys() and all(a[k].shape == b[k].shape and a[k].dtype == b[k].dtype for k in a)
