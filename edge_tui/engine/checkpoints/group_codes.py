"""Describes the matrices that AWQ, GPTQ or AutoRound stored as codes of 4 or 8 bits.

A matrix X lies in several tensors: `X.qweight` holds the codes, as many as fit into each int32; `X.scales`
and `X.qzeros` hold a scale and a zero point for each group of inputs and each output; `X.g_idx` the group of
each input (GPTQ alone). A weight is (code − zero point) · scale. `GroupFormat` says where the bits of a code
lie, `find_codes` finds the matrices by the headers, `group_codes_reader` unpacks them. This module imports no
torch.

Sources: arXiv 2306.00978 (AWQ), 2210.17323 (GPTQ), 2309.05516 (AutoRound), and the layouts that these save.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from edge_tui.engine.checkpoints.gguf.model import ENDS
from edge_tui.engine.checkpoints.weight_files import CheckpointError, StoredTensor, quantisation_error
from edge_tui.engine.ops.group_form import GroupForm, form_of_groups
from edge_tui.util.sanitise import one_line

if TYPE_CHECKING:
    from collections.abc import Mapping

_INT32 = 32
_GROUP = 128
"""Inputs of a group where config.json states none, as in transformers."""
_AWQ_SHIFTS = tuple(4 * place for place in (0, 4, 1, 5, 2, 6, 3, 7))
"""Outputs 0, 2, 4, 6, 1, 3, 5, 7 lie in an int32 from its low end on."""
_FORMATS = {"awq": "AWQ", "gptq": "GPTQ", "auto-round": "AutoRound"}
_AUTO_ROUND = {"auto_round:auto_gptq": "gptq", "auto_round:auto_awq": "awq"}
_ZERO_OFFSETS = {"gptq": 1, "gptq_v2": 0}
"""Number to add to a stored zero point, by the version of GPTQ's files: the first stored one less."""
_LAYOUTS = {"awq": (4,), "gptq": (4, 8), "gptq_v2": (4, 8)}
"""Layouts that are read, with the bits of a code that each may have."""
_SCALES = ("F16", "BF16", "F32")
_WHOLE = 16
"""Bits of a layer that is not quantised."""


@dataclass(frozen=True, slots=True)
class GroupFormat:
    """Describes how the matrices of one checkpoint are stored.

    Attributes:
        name: "AWQ", "GPTQ", "AutoRound".
        bits: Of a code: 4 or 8.
        group_size: Inputs that share a scale; -1 means all.
        packs_outputs: True if an int32 holds codes of neighbouring outputs of one input (AWQ), False if those
            of neighbouring inputs of one output.
        shifts: Bits below the code of the 1st, 2nd … neighbour in an int32.
        zero_offset: Added to each stored zero point.
        needs_groups: True if the groups are not in the order of the inputs, so that `g_idx` must be there.
    """

    name: str
    bits: int
    group_size: int
    packs_outputs: bool
    shifts: tuple[int, ...]
    zero_offset: int
    needs_groups: bool

    @property
    def label(self) -> str:
        """The format for people: "AWQ 4 bit g128"."""
        return f"{self.name} {self.bits} bit" + (f" g{self.group_size}" if self.group_size > 0 else "")


@dataclass(frozen=True, slots=True)
class CodedMatrix:
    """Describes one matrix.

    Attributes:
        base: The name of its tensors without ".qweight".
        rows: Outputs.
        columns: Inputs.
        group_size: Inputs that share a scale, if they are in order; the last group may be shorter.
        has_groups: True if `g_idx` is stored.
        form: The form in which a GPU keeps the codes, if the groups are in order; None if there is none.
    """

    base: str
    rows: int
    columns: int
    group_size: int
    has_groups: bool
    form: GroupForm | None

    @property
    def groups(self) -> int:
        """Groups of inputs."""
        return -(-self.columns // self.group_size)

    @property
    def parts(self) -> tuple[str, ...]:
        """Names of its stored tensors; not all need be there."""
        return tuple(f"{self.base}.{part}" for part in ("qweight", "qzeros", "scales", "g_idx"))


@dataclass(frozen=True, slots=True)
class GroupCodes:
    """Describes all matrices of a checkpoint that are stored as codes.

    Attributes:
        form: How they are stored.
        matrices: By the names that the loaders read them by, `X.weight`.
    """

    form: GroupFormat
    matrices: Mapping[str, CodedMatrix]

    def read_copy(self, ends: bool) -> int:
        """Counts the bytes that the largest matrix takes in float32, with its scales and zero points.

        Args:
            ends: True for embedding and head, False for the matrices of the layers.
        """
        copies = (
            4 * matrix.rows * (matrix.columns + 2 * matrix.groups)
            for name, matrix in self.matrices.items()
            if (name in ENDS) == ends
        )
        return max(copies, default=0)


def format_of(name: str, config: Mapping[str, Any]) -> GroupFormat | None:
    """Reads the format from a config.json; None if it declares none of the three.

    Args:
        name: As the user named the checkpoint.
        config: config.json.

    Raises:
        CheckpointError: it is of a variant that is not read.
    """
    stored = config.get("quantization_config")
    method = str(stored.get("quant_method")).lower() if isinstance(stored, dict) else ""
    if not isinstance(stored, dict) or method not in _FORMATS:
        return None
    title, layout = _FORMATS[method], _layout_of(method, stored)
    if layout not in _LAYOUTS:
        raise quantisation_error(name, one_line(f"{title} ({layout})"))
    bits, group = stored.get("bits", stored.get("w_bit")), stored.get("group_size", _GROUP)
    if type(bits) is not int or bits not in _LAYOUTS[layout]:
        raise quantisation_error(name, one_line(f"{title} {bits} bit"))
    if type(group) is not int or not (group == -1 or group > 0):
        raise quantisation_error(name, one_line(f"{title} with groups of {group}"))
    if _differs_in_a_layer(stored, bits, group):
        raise quantisation_error(name, f"{title} with other bits or groups in some layers")
    if layout == "awq":
        return GroupFormat(title, bits, group, True, _AWQ_SHIFTS, 0, False)
    shifts, offset = tuple(range(0, _INT32, bits)), _ZERO_OFFSETS[layout]
    return GroupFormat(title, bits, group, False, shifts, offset, bool(stored.get("desc_act")))


def _layout_of(method: str, stored: Mapping[str, Any]) -> str:
    """Names the layout of the codes: a key of `_LAYOUTS`, or words for one that is not read."""
    if method == "auto-round":
        packing, kind = stored.get("packing_format") or "no packing_format", stored.get("data_type", "int")
        return str(kind) if kind != "int" else _AUTO_ROUND.get(str(packing), str(packing))
    if method == "awq":
        version = str(stored.get("version") or stored.get("format") or "gemm").lower()
        if not stored.get("zero_point", True):
            return "without zero points"
        return "awq" if version == "gemm" else version
    if stored.get("is_marlin_format"):
        return "marlin"
    return str(stored.get("checkpoint_format") or stored.get("format") or "gptq").lower()


def _differs_in_a_layer(stored: Mapping[str, Any], bits: int, group: int) -> bool:
    """Tells whether a layer's codes have other bits or groups than the rest; layers without codes pass."""
    for key in ("dynamic", "extra_config"):
        layers = stored.get(key) or {}
        if not isinstance(layers, dict):
            return True
        for layer, own in layers.items():
            if str(layer).startswith("-:"):  # GPTQ's mark of a layer that is not quantised
                continue
            own_bits = own.get("bits", bits) if isinstance(own, dict) else None
            if type(own_bits) is int and own_bits >= _WHOLE:
                continue
            if own_bits != bits or own.get("group_size", group) != group:
                return True
            if own.get("data_type", "int") != "int":
                return True
    return False


def find_codes(
    name: str, form: GroupFormat, stored: Mapping[str, StoredTensor]
) -> tuple[GroupCodes, dict[str, StoredTensor]]:
    """Finds the matrices that are stored as codes, and checks their tensors' shapes.

    Args:
        name: As the user named the checkpoint.
        form: As its config.json says.
        stored: Every stored tensor.

    Returns:
        The matrices; and all tensors as the loaders see them, where each matrix has the format's name for its
        dtype, its shape `[out, in]`, and the bytes of all its tensors.

    Raises:
        CheckpointError: there are no codes, or their tensors do not fit one another or the format.
    """
    matrices: dict[str, CodedMatrix] = {}
    tensors = dict(stored)
    for key in stored:
        base, dot, end = key.rpartition(".")
        if not dot or end != "qweight":
            continue
        matrix = matrices[f"{base}.weight"] = _matrix(name, form, base, stored)
        if f"{base}.weight" in stored:
            raise CheckpointError(
                f"{name} has {one_line(base)[:80]} both as {form.name} and in full; take another checkpoint."
            )
        size = sum(tensors.pop(part).bytes for part in matrix.parts if part in tensors)
        tensors[f"{base}.weight"] = StoredTensor(form.name, (matrix.rows, matrix.columns), size)
    if not matrices:
        raise CheckpointError(
            f"{name} is quantised as {form.name} by its config.json, but has no tensor qweight; "
            "take another checkpoint."
        )
    return GroupCodes(form, matrices), tensors


def _matrix(name: str, form: GroupFormat, base: str, stored: Mapping[str, StoredTensor]) -> CodedMatrix:
    """Describes one matrix by the headers of its tensors."""
    shown, per = one_line(base)[:80], len(form.shifts)

    def check(part: str, dtypes: tuple[str, ...], shape: tuple[int, ...]) -> None:
        tensor = stored.get(f"{base}.{part}")
        if tensor is None:
            raise CheckpointError(
                f"{shown} of {name} is quantised as {form.name}, but has no tensor {part}; "
                "take another checkpoint."
            )
        if tensor.dtype not in dtypes or tensor.shape != shape:
            raise CheckpointError(
                f"{shown}.{part} of {name} is {one_line(tensor.dtype)} {list(tensor.shape)}, but "
                f"{form.label} wants {dtypes[0]} {list(shape)}; take another checkpoint."
            )

    shape = stored[f"{base}.qweight"].shape
    if len(shape) != 2 or not all(shape):
        raise CheckpointError(
            f"{shown}.qweight of {name} has shape {list(shape)}, which is no matrix; take another checkpoint."
        )
    columns, rows = (shape[0], shape[1] * per) if form.packs_outputs else (shape[0] * per, shape[1])
    size = columns if form.group_size == -1 else form.group_size
    groups = -(-columns // size)
    check("qweight", ("I32",), shape)
    check("scales", _SCALES, (groups, rows))
    check("qzeros", ("I32",), (groups, -(-rows // per)))
    has_groups = not form.packs_outputs and (form.needs_groups or f"{base}.g_idx" in stored)
    if has_groups:
        check("g_idx", ("I32", "I64"), (columns,))
    whole = columns % size == 0 and stored[f"{base}.scales"].dtype == "F16" and not form.needs_groups
    kept = form_of_groups(form.bits, size, "zero") if whole else None
    return CodedMatrix(base, rows, columns, size, has_groups, kept)
