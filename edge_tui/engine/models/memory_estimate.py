"""Estimates the memory of one model in one precision, from the headers of its files, before a load.

Weights are counted from the headers of the weight files exactly as the loaders store them; keys and values
from the shape of the attention; the rest (logits, activations of a prefill chunk, workspaces) from the
widths of the model. Importing this module loads no torch.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from edge_tui.engine.checkpoints.gguf.model import ENDS
from edge_tui.engine.models.architectures import FlatConfig, flat_config, supports
from edge_tui.engine.models.capacity import CHUNK, SLACK, SLICE, round_up
from edge_tui.engine.models.mask_need import flash_runs, needs_mask
from edge_tui.engine.models.weight_bytes import CODE_COPIES, WIDTH, count_weights
from edge_tui.engine.ops.cpu import packed_sizes
from edge_tui.engine.ops.cpu.packed_sizes import packers
from edge_tui.engine.ops.quantisation import FOUR_BIT, INT8, QUANTISATIONS
from edge_tui.engine.ops.row_counts import kernel_bytes
from edge_tui.machine.devices import compute_capability, cpu_has_bfloat16, free_memory
from edge_tui.util.formatting import size

if TYPE_CHECKING:
    from collections.abc import Sequence

    from edge_tui.engine.checkpoints.checkpoint import Checkpoint
    from edge_tui.engine.models.mixture import Mixture

UNLIMITED = 32_768
"""Positions reserved for a model that states no limit (recurrent ones)."""
SMALL = 1_000_000_000
"""Weights up to which float32 is the fastest on a CPU, measured on an AMX machine for a single row: 896²
matrices run at 91 µs against 112 µs in bfloat16, 4096² ones at 2.1 ms against 1.5 ms."""
_LOGIT_COPIES = 8
"""Vocabulary-wide rows of four bytes that a decode step holds: logits and their copy for the record, the
final distribution, counts of prompt and answer, a search's keys and its 64-bit weights."""
_STREAM_COPIES = 3
"""The same of each further stream: logits, their difference and its weighted sum."""
_WORKSPACE = 2**25
"""Bytes that cuBLAS keeps on Hopper."""
_ATTENTION = ("full_attention", "sliding_attention", "chunked_attention", "attention")


@dataclass(frozen=True, slots=True)
class MemoryEstimate:
    """Holds the bytes that a model will take on one device.

    Attributes:
        device: "cuda:0", "cpu".
        weights: As they will lie in memory.
        kv: Keys and values of every row, at the full context; and the hidden states that a strategy keeps.
        logits: Logits and what a sampling step makes of them.
        overhead: Activations of a prefill chunk, temporary copies, workspaces.
        total: The sum: the peak to expect.
        free: Free on the device now, None where unknown.
        fits: True if the total is at most what is free; True where that is unknown.
        sentence: All of it for the user.
    """

    device: str
    weights: int
    kv: int
    logits: int
    overhead: int
    total: int
    free: int | None
    fits: bool
    sentence: str


def estimate(
    checkpoint: Checkpoint,
    precision: str,
    context: int,
    rows: int,
    device: str,
    new: int = 0,
    past: bool = False,
    streams: int = 1,
) -> MemoryEstimate:
    """Adds up what a model will take.

    Args:
        checkpoint: The weights.
        precision: As `ModelSpec.precision`.
        context: Positions to reserve; 0 means the model's own limit.
        rows: Sequences decoded side by side.
        device: "cuda:N", "cpu" or "mps".
        new: Number of positions after the prompt, which several rows have for themselves; 0 means
            all of them.
        past: True where a strategy keeps the last layer's hidden state of every position (`Needs.past`).
        streams: Prompts of the model that a strategy reads; each has rows of its own.
    """
    context = context or checkpoint.context
    caches = rows * streams
    return _summarise(
        f"{checkpoint.name} in {resolve_precision(checkpoint, precision, device)[0]}",
        device,
        MemoryNeed(checkpoint, precision, rows, new, device, past, streams).at(context),
        f"{caches:,} × {context:,} positions" if caches > 1 else f"{context:,} positions",
    )


def estimate_pair(estimates: Sequence[MemoryEstimate]) -> tuple[MemoryEstimate, ...]:
    """Sums the estimates of models that are loaded together: one for each device they share."""
    devices: dict[str, list[MemoryEstimate]] = defaultdict(list)
    for one in estimates:
        devices[one.device].append(one)
    return tuple(_sum(device, group) if len(group) > 1 else group[0] for device, group in devices.items())


def _sum(device: str, group: Sequence[MemoryEstimate]) -> MemoryEstimate:
    overhead = max(f.overhead for f in group)  # they compute in turn
    parts = sum(f.weights for f in group), sum(f.kv for f in group), sum(f.logits for f in group), overhead
    what = f"The {'pair' if len(group) == 2 else 'set'} of models"
    return _summarise(what, device, parts, "both contexts")


def largest_context(checkpoint: Checkpoint, precision: str, device: str, rows: int = 1) -> int:
    """Returns the most positions that nine tenths of free memory hold, at most the model's limit.

    Returns:
        0 if not even the weights fit.
    """
    limit = checkpoint.context or UNLIMITED
    free = free_memory(device)
    if free is None:
        return limit
    need = MemoryNeed(checkpoint, precision, rows, 0, device)
    return max(bisect_right(range(limit + 1), 0.9 * free, key=lambda n: sum(need.at(n))) - 1, 0)


def context_to_reserve(checkpoint: Checkpoint, requested: int, precision: str, device: str) -> int:
    """Returns the positions that a load reserves: `requested`, or the model's limit as far as memory allows.

    Where not even the weights fit, a few: that it does not fit is then for `estimate` to say.
    """
    limit = checkpoint.context or UNLIMITED
    return min(requested or largest_context(checkpoint, precision, device) or CHUNK, limit)


def keeps_codes(checkpoint: Checkpoint, precision: str, device: str) -> bool:
    """Tells whether a load keeps the layers' matrices as the codes that are stored.

    It does in the flat tier, on an NVIDIA GPU and, those of four bits, on a CPU, unless another precision is
    asked for. Both the loader and the estimate go by this.
    """
    if device == "mps" or precision not in ("auto", packed_precision(checkpoint)):
        return False
    flat = _flat(checkpoint)
    if flat is None or flat.layout.transposed:
        return False
    layout = flat.layout.found_in(checkpoint.tensors)
    forms = (
        (form, tensor.shape)
        for name, tensor in checkpoint.tensors.items()
        if layout.matrix_of(name) and (form := checkpoint.form_of(name))
    )
    return any(device != "cpu" or packed_sizes.keeps_codes(form, *shape) for form, shape in forms)


def packed_precision(checkpoint: Checkpoint) -> str:
    """Names the precision of a model whose matrices stay as they are stored: "GGUF Q4_K, packed"."""
    return f"{checkpoint.format}, packed"


def resolve_precision(checkpoint: Checkpoint, precision: str, device: str) -> tuple[str, str]:
    """Resolves "auto" for a model on a device, and chooses the dtype to compute in.

    On a GPU the checkpoint's own dtype, on a CPU float32 for small models, and for large ones bfloat16 where
    the processor multiplies it natively or float32 would not fit. It never quantises: probabilities are then
    the checkpoint's own. Weights that are stored quantised stay so; a CPU's flat decoder computes with them
    in float32, which costs a step nothing beside reading them.

    Returns:
        (precision, compute dtype): a dtype's name, "int8", "4bit" or `packed_precision`, and a dtype's name.
    """
    if checkpoint.quantization:
        precision = checkpoint.quantization
    own = checkpoint.dtype if checkpoint.dtype in WIDTH else "float32"
    half = own if own != "float32" else "bfloat16"
    if precision in WIDTH:
        return precision, precision
    if precision in QUANTISATIONS:
        if device != "cpu":
            return precision, half
        return precision, "float32" if _flat(checkpoint) else "bfloat16"
    if keeps_codes(checkpoint, precision, device):
        return packed_precision(checkpoint), "float32" if device == "cpu" else half
    if device != "cpu":
        return own, own
    if checkpoint.parameters <= SMALL:
        return "float32", "float32"
    free = free_memory("cpu")
    tight = free is not None and 4 * checkpoint.parameters > 0.8 * free
    dtype = "bfloat16" if cpu_has_bfloat16() or tight else "float32"
    return dtype, dtype


def _summarise(what: str, device: str, parts: tuple[int, int, int, int], positions: str) -> MemoryEstimate:
    weights, kv, logits, overhead = parts
    total = sum(parts)
    free = free_memory(device)
    fits = free is None or total <= free
    split = f"weights {size(weights)}, KV cache {size(kv)} for {positions}, buffers {size(logits + overhead)}"
    sentence = f"{what} needs {size(total)} on {device} ({split})"
    if free is not None:
        sentence += f"; {size(free)} {'is' if fits else 'are'} free"
    sentence += "." if fits else ": choose a smaller precision, a shorter context or another device."
    return MemoryEstimate(device, weights, kv, logits, overhead, total, free, fits, sentence)


class MemoryNeed:
    """Computes what a model needs as its context grows; weights are counted once."""

    def __init__(
        self,
        checkpoint: Checkpoint,
        precision: str,
        rows: int,
        new: int,
        device: str,
        past: bool = False,
        streams: int = 1,
    ) -> None:
        self._checkpoint = checkpoint
        self._flat = _flat(checkpoint)
        self._precision, dtype = resolve_precision(checkpoint, precision, device)
        self._kind, self._device = QUANTISATIONS.get(self._precision), device
        self._codes = keeps_codes(checkpoint, self._precision, device)
        if self._codes and device == "cpu":
            self._kind = FOUR_BIT
        self._number = WIDTH[dtype]
        self._rows, self._new, self._streams = rows, new, streams
        self._cuda = device.startswith("cuda")
        self._weights, self._inner, self._first = count_weights(
            checkpoint, self._flat, self._precision, dtype, device, self._codes
        )
        self._position = _kv_bytes(checkpoint, self._flat, dtype)
        stated = checkpoint.number("hidden_size", "n_embd", "d_model")
        width = self._flat.embedding_width if self._flat else stated
        self._state = width * self._number if past else 0
        self._vocab = checkpoint.vocab

    def at(self, context: int) -> tuple[int, int, int, int]:
        """Counts the bytes of weights, cache, logits and overhead with `context` reserved positions.

        The peak is the worst of three moments: the last matrices being stored, the end of a long prompt being
        read, and all rows decoding. The excess over the last one is overhead.
        """
        kv, root = self._caches(context)
        copies = _LOGIT_COPIES + _STREAM_COPIES * (self._streams - 1)
        logits = self._rows * self._vocab * 4 * copies
        mixed = not self._cuda and self._number == 2 and self._flat and self._flat.features.mixture
        kept = kernel_bytes(min(context, CHUNK)) if mixed else _WORKSPACE * self._cuda
        fixed = self._tables(context) + kept
        storing = self._weights + self._storing()
        # A CPU's heap keeps as much again: what was freed and does not fit what comes next.
        reading = self._weights + fixed + root + self.reading(context) * (1 if self._cuda else 2)
        decoding = self._weights + fixed + kv + logits
        return self._weights, kv, logits, max(storing, reading, decoding) - self._weights - kv - logits

    def _caches(self, context: int) -> tuple[int, int]:
        """Counts what lies in the contexts of all rows, and in those that prompts are read into.

        Rows that the fused kernels of a GPU read share the prompt's keys and values and need room for what is
        new; elsewhere each is a copy, and hidden states, which the main stream alone keeps, always are.
        """
        capacity = round_up(context + SLACK)
        prompt, states = (capacity if self._flat else context) * self._position, capacity * self._state
        root = self._streams * prompt + states
        if self._rows == 1:
            return root, root
        start = context - self._new if self._new else 1
        shares = self._flat is not None and self._cuda and self._flat.is_fusible
        row = round_up(capacity - start) * self._position if shares else prompt
        return root + self._rows * (self._streams * row + states), root

    def _tables(self, context: int) -> int:
        """Counts the tables of cosines and sines."""
        if self._flat is None:
            return 0
        local = self._flat.features.local_rope
        dim = self._flat.rope.dim + (local.dim if local else 0)
        return 2 * round_up(context + SLACK) * dim * self._number

    def _storing(self) -> int:
        """Counts what exists beside the finished weights while the largest matrix is packed."""
        # As read; LLM.int8 takes it through another copy in 16 bit.
        one = self._inner * (self._number + (self._kind.wide_copy if self._kind and self._cuda else 0))
        if self._codes:
            one = self._inner * CODE_COPIES
        one *= packers() if self._precision == "float32" else 1
        layers, ends = (self._checkpoint.read_copy(ends) for ends in (False, True))
        if not (layers or ends) or self._device != "cpu":
            return max(one, self._turning(), self._first - self._weights)
        wide = sum(tensor.numel for name, tensor in self._checkpoint.tensors.items() if name in ENDS)
        begin = max(self._first, wide * self._number + ends)
        return max(one + layers, begin - self._weights)

    def _turning(self) -> int:
        """Counts the experts of a layer beside those that are turned round."""
        if self._flat is None or self._flat.features.mixture is None:
            return 0
        m, turned = self._flat.features.mixture, self._flat.layout.experts.transposed
        return 2 * m.experts * m.width * self._flat.hidden * self._number if turned else 0

    def reading(self, context: int) -> int:
        """Counts what reading a prompt makes beside weights and cache: most at its last two chunks."""
        if not self._flat:
            return self._reading_elsewhere(context)
        whole, rest = divmod(context, CHUNK)
        chunks = [(CHUNK, whole * CHUNK)] * (whole > 0) + [(rest, context)] * (rest > 0)
        return max((self._chunk(self._flat, k, end) for k, end in chunks), default=0)

    def _chunk(self, f: FlatConfig, k: int, end: int) -> int:
        """Counts what reading the `k` positions before `end` makes."""
        n, start = self._number, end - k
        heads, kv = f.heads * f.widest_head, max(shape.kv_width for shape in f.shapes)
        wide = max(shape.intermediate for shape in f.shapes)
        flash = self._cuda and flash_runs(compute_capability(self._device), n, f.widest_head)
        masked = needs_mask(f.windows, start, k, alibi=f.features.alibi, later_hidden=flash)
        masks = n * k * end * len(set(f.windows)) * (f.heads if f.features.alibi else 1) if masked else 0
        # A mask is made from int64 distances and booleans.
        making = masks + (9 + any(f.windows)) * k * end if masked else 0
        x = n * k * f.hidden
        # Besides its input a layer keeps the normed one, and the chunk before its result until the end.
        attention = 3 * x + n * k * (heads + kv + 2 * heads)
        if f.features.score_cap or f.features.sinks:
            # float32 before the softmax and after it, and in the compute dtype
            attention += (8 + 2 * n) * f.heads * min(k, SLICE) * end
        products = 2 if f.features.gated else 1
        product = (products + 1) * wide * n
        if self._kind is INT8 and self._cuda:
            # The product as int32 and as 16 bit, and the input in 16 and in 8 bit.
            product = products * (4 + 2) * wide + 3 * f.hidden
        feed_forward = 4 * x + k * product
        feed_forward += self._widened()
        if f.features.mixture is not None:
            feed_forward = max(feed_forward, 3 * x + self._mixing(f.features.mixture, k, f.hidden))
        # Looked up, and made of the stream; the latter stays for all layers.
        inputs = n * k * f.layers * f.features.per_layer_width
        return max(making, masks + inputs + max(attention, feed_forward, inputs))

    def _mixing(self, m: Mixture, k: int, hidden: int) -> int:
        """Counts what a mixture of experts makes of `k` positions, as many times as each has experts."""
        n, pairs = self._number, k * m.active
        router = k * (n + 8) * m.experts + 36 * pairs
        products = n * pairs * max(hidden + 2 * m.width, (5 if m.limit else 3) * m.width)
        return router + max(products, (pairs + k) * hidden * (n + 4))  # summed in float32, or put in order

    def _reading_elsewhere(self, context: int) -> int:
        """Counts the same where transformers runs every row at once, in eager attention's copies."""
        n, stated = self._number, self._checkpoint.number
        hidden = stated("hidden_size", "n_embd", "d_model")
        wide = stated("intermediate_size", "n_inner", "ffn_dim", default=4 * hidden)
        k = min(CHUNK, context)
        masks = k * context * n if context > CHUNK else 0
        return 2 * masks + self._rows * k * 4 * (hidden + wide) * n + self._widened()

    def _widened(self) -> int:
        """Counts what one matrix takes that is widened to 16 bit for a chunk, the largest of the layers."""
        if self._kind is None:
            return 2 * self._inner if self._codes else 0  # of a GPU
        shapes: list[tuple[int, int]] = []
        if (f := self._flat) is not None:
            products = 2 if f.features.gated else 1
            for shape in dict.fromkeys(replace(shape, source=0) for shape in f.shapes):
                heads, wide = f.heads * shape.head_dim, shape.intermediate
                shapes += [(heads + shape.kv_width, f.hidden), (f.hidden, heads)]
                shapes += [(products * wide, f.hidden), (f.hidden, wide)]
        return self._kind.widened_bytes(self._inner, shapes, self._device)


def _flat(checkpoint: Checkpoint) -> FlatConfig | None:
    """Returns the flat decoder's numbers, or None for the transformers tier."""
    return None if supports(checkpoint.config) else flat_config(checkpoint.config)


def _kv_bytes(checkpoint: Checkpoint, flat: FlatConfig | None, dtype: str) -> int:
    """Counts the bytes of one position's keys and values in one row."""
    if flat:
        return flat.kv_width * WIDTH[dtype]
    c, stated = checkpoint.text_config, checkpoint.number
    heads = stated("num_attention_heads", "n_head", "n_heads", "num_heads")
    hidden = stated("hidden_size", "n_embd", "d_model")
    kinds = c.get("layer_types") or c.get("layers_block_type")
    layers = sum(kind in _ATTENTION for kind in kinds) if isinstance(kinds, list) else checkpoint.layers
    if not heads or not checkpoint.context:
        return 0
    shared = 1 if c.get("multi_query") and not c.get("new_decoder_architecture") else heads
    kv_heads = stated("num_key_value_heads", "n_head_kv", "num_kv_heads", default=shared)
    width = stated("head_dim", default=hidden // heads)
    keys = stated("qk_nope_head_dim") + stated("qk_rope_head_dim") or width
    values = stated("v_head_dim", default=width)
    return layers * kv_heads * (keys + values) * WIDTH[dtype]
