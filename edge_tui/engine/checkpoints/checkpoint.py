"""Finds checkpoints on disk, describes them without reading a tensor, and refuses others with a reason.

A checkpoint is a folder in Hugging Face layout (config.json, safetensors, a tokenizer) or a GGUF file.
Everything here comes from small JSON files and from the headers of the weight files, so a cache with hundreds
of gigabytes is listed in milliseconds. Importing it loads neither torch nor transformers.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge_tui.engine.checkpoints import tokenizer_files
from edge_tui.engine.checkpoints.config_numbers import check_ids, check_numbers
from edge_tui.engine.checkpoints.gguf.choice import choose
from edge_tui.engine.checkpoints.gguf.kinds import FORMS, KINDS
from edge_tui.engine.checkpoints.gguf.model import GgufModel, models_in, open_gguf
from edge_tui.engine.checkpoints.group_codes import GroupCodes, find_codes, format_of
from edge_tui.engine.checkpoints.locate import find, missing_config_error
from edge_tui.engine.checkpoints.model_classes import architecture_of
from edge_tui.engine.checkpoints.weight_files import CheckpointError as CheckpointError
from edge_tui.engine.checkpoints.weight_files import StoredTensor as StoredTensor
from edge_tui.engine.checkpoints.weight_files import (
    quantisation_error,
    read_json,
    read_tensors,
    unreadable_error,
)
from edge_tui.engine.ops.quantisation import QUANTISATIONS, is_scale
from edge_tui.util.user_file import error_reason, special_file

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from tokenizers import Tokenizer as FastTokenizer

    from edge_tui.engine.checkpoints.source import TensorReader
    from edge_tui.engine.ops.group_form import GroupForm

"""Files that a question names."""
_TEMPLATE_BYTES = 4_000_000
"""Most bytes of a chat template; the longest that are published have some 50,000."""
_DTYPES = {"F32": "float32", "F16": "float16", "BF16": "bfloat16", "F64": "float64"}
_DTYPES |= {kind.name: "bfloat16" for kind in KINDS.values() if kind.packed}  # the dtype to compute in


@dataclass(frozen=True)
class Checkpoint:
    """Describes a folder in Hugging Face layout or a model in GGUF; a `CheckpointSource`.

    Attributes:
        name: As the user named it.
        path: The folder, or the GGUF file.
        config: config.json.
        architecture: Class of the model, e.g. "Qwen2ForCausalLM".
        tensors: Stored tensors by name.
        quantization: "" or, for weights stored by bitsandbytes, "int8" or "4bit".
        generation_config: generation_config.json, {} without one.
        tokenizer_config: tokenizer_config.json with the special tokens of older files, {} without one.
        chat_template: Jinja source, None if the checkpoint has no template.
        gguf: Description of the GGUF files, None for a folder in Hugging Face layout.
        codes: Description of the matrices that AWQ, GPTQ or AutoRound stored, None without any. `tensors`
            lists each as one tensor, and `config` has no word of it: the loaders read plain weights.
    """

    name: str
    path: Path
    config: Mapping[str, Any] = field(repr=False)
    architecture: str
    tensors: Mapping[str, StoredTensor] = field(repr=False)
    quantization: str = ""
    generation_config: Mapping[str, Any] = field(default_factory=dict, repr=False)
    tokenizer_config: Mapping[str, Any] = field(default_factory=dict, repr=False)
    chat_template: str | None = field(default=None, repr=False)
    gguf: GgufModel | None = None
    codes: GroupCodes | None = None

    @property
    def text_config(self) -> Mapping[str, Any]:
        """The language model's part of the configuration; multimodal checkpoints nest it."""
        nested = self.config.get("text_config")
        return nested if isinstance(nested, dict) else self.config

    @property
    def layers(self) -> int:
        """Number of decoder layers, 0 if none is stated."""
        return self.number("num_hidden_layers", "n_layer", "num_layers", "n_layers")

    @property
    def context(self) -> int:
        """Most positions the model was made for; 0 if it states none (recurrent models)."""
        return self.number("max_position_embeddings", "n_positions", "n_ctx", "max_seq_len", "seq_length")

    @property
    def vocab(self) -> int:
        """Rows of the embedding as configured; the tokenizer may know fewer."""
        return self.number("vocab_size", "n_vocab")

    @cached_property
    def dtype(self) -> str:
        """The dtype that most floating-point weights are stored in: "bfloat16", "float16", "float32".

        Weights that GGUF packs count as bfloat16, whose range no model exceeds; those of AWQ, GPTQ and
        AutoRound do not count.
        """
        sizes = dict.fromkeys(_DTYPES, 0)
        for tensor in self.tensors.values():
            if tensor.dtype in sizes:
                sizes[tensor.dtype] += tensor.numel
        return _DTYPES[max(sizes, key=sizes.__getitem__)]

    @cached_property
    def format(self) -> str:
        """The storage kind of most weights, for people: "bfloat16", "int8", "GGUF Q4_K", "AWQ 4 bit g128"."""
        if self.codes is not None:
            return self.codes.form.label
        if self.gguf is None:
            return self.quantization or self.dtype
        sizes: dict[str, int] = {}
        for tensor in self.tensors.values():
            sizes[tensor.dtype] = sizes.get(tensor.dtype, 0) + tensor.numel
        return f"GGUF {max(sizes, key=sizes.__getitem__)}"

    @cached_property
    def parameters(self) -> int:
        """Number of stored weights; two 4-bit weights share a byte, scales are not weights."""
        weights = (tensor for name, tensor in self.tensors.items() if not is_scale(name))
        kind = QUANTISATIONS.get(self.quantization)
        return sum(t.numel * (kind.per_byte if kind and t.dtype == "U8" else 1) for t in weights)

    @cached_property
    def bytes(self) -> int:
        """Bytes of the stored tensors."""
        return sum(tensor.bytes for tensor in self.tensors.values())

    @cached_property
    def eos_token(self) -> str:
        """The token that ends a sequence, by its name; "" if none is named."""
        return _token(self.tokenizer_config.get("eos_token"))

    @cached_property
    def bos_id(self) -> int | None:
        """The beginning-of-sequence id, if the checkpoint has one."""
        ids = self._ids("bos_token_id", _token(self.tokenizer_config.get("bos_token")))
        return ids[0] if ids else None

    @cached_property
    def eos_ids(self) -> tuple[int, ...]:
        """Every id that ends a sequence: the union of generation config, model config and tokenizer."""
        return self._ids("eos_token_id", self.eos_token)

    def form_of(self, name: str) -> GroupForm | None:
        """Returns the form of a stored matrix whose codes a GPU can keep; None for all other tensors."""
        if self.codes is not None:
            return matrix.form if (matrix := self.codes.matrices.get(name)) else None
        tensor = self.tensors[name]
        return FORMS.get(tensor.dtype) if self.gguf is not None and len(tensor.shape) == 2 else None

    def read_copy(self, ends: bool) -> int:
        """Counts the bytes of the copy that reading the largest tensor makes; 0 if all are read as they lie.

        Args:
            ends: True for embedding and head, False for the tensors of the layers.
        """
        source = self.gguf or self.codes
        return 0 if source is None else source.read_copy(ends)

    def open_tensors(self) -> TensorReader:
        """Opens the weight files.

        Raises:
            CheckpointError: one is missing.
            WeightsError: one is damaged.
        """
        if self.gguf is not None:
            return self.gguf.open_tensors()
        from edge_tui.engine.checkpoints.weights import SafetensorsReader

        reader = SafetensorsReader(self.name, self.path)
        if self.codes is None:
            return reader
        from edge_tui.engine.checkpoints.group_codes_reader import GroupCodesReader

        plain = sum(t.bytes for name, t in self.tensors.items() if name not in self.codes.matrices)
        return GroupCodesReader(reader, self.codes, plain)

    def read_tokenizer(self) -> FastTokenizer:
        """Reads tokenizer.json, else what transformers or the metadata of a GGUF file make of a vocabulary.

        Raises:
            CheckpointError: there is no tokenizer, or it is broken.
        """
        if self.gguf is None:
            return tokenizer_files.read_tokenizer(self.name, self.path)
        if self.gguf.tokenizer_file is None:
            return self.gguf.make_tokenizer()
        fast = tokenizer_files.read_tokenizer(self.name, self.gguf.tokenizer_file.parent)
        if fast.get_vocab_size() > self.vocab:
            raise CheckpointError(
                f"{self.gguf.tokenizer_file} has {fast.get_vocab_size():,} tokens, more than the "
                f"{self.vocab:,} of {self.name}; remove it, or put the model's own in its place."
            )
        return fast

    def class_tokens(self) -> Mapping[str, str]:
        """Returns the special tokens that only the tokenizer's class knows, by role."""
        return {} if self.gguf is not None else tokenizer_files.class_tokens(self.path)

    def vocabulary(self) -> tuple[str, dict[str, int]]:
        """Returns a fingerprint of the vocabulary and the ids of added tokens."""
        if self.gguf is None:
            return tokenizer_files.vocabulary(self.path)
        if self.gguf.tokenizer_file is not None:
            return tokenizer_files.vocabulary(self.gguf.tokenizer_file.parent)
        vocabulary = self.gguf.vocabulary()
        return vocabulary.fingerprint(), vocabulary.ids()

    def number(self, *keys: str, default: int = 0) -> int:
        """Returns the first of these keys that the configuration states as a number above 0."""
        values = (config.get(key) for config in (self.text_config, self.config) for key in keys)
        return next((n for n in values if isinstance(n, int) and not isinstance(n, bool) and n > 0), default)

    def _ids(self, key: str, token: str) -> tuple[int, ...]:
        ids: dict[int, None] = {}
        for config in (self.generation_config, self.config, self.text_config):
            value = config.get(key)
            for one in value if isinstance(value, list) else [value]:
                if isinstance(one, int) and not isinstance(one, bool) and one >= 0:
                    ids[one] = None
        if token:
            added = self.tokenizer_config.get("added_tokens_decoder")
            own = {_token(t): int(i) for i, t in added.items()} if isinstance(added, dict) else {}
            one = own[token] if token in own else self.vocabulary()[1].get(token)
            if one is not None:
                ids[one] = None
        return tuple(ids)


def open_checkpoint(name: str) -> Checkpoint:
    """Finds and describes a checkpoint.

    Args:
        name: As `locate.find` takes it.

    Raises:
        CheckpointError: it is not there, incomplete, or of a kind that is not supported.
    """
    path = find(name)
    if path.is_file():
        return describe_gguf(name, path)
    try:
        special = special_file(path)
    except OSError as error:
        raise CheckpointError(
            f"The folder {path} cannot be read ({error_reason(error)}); check its permissions."
        ) from error
    if special is not None:
        raise CheckpointError(f"{special.name} of {name} is no file but a pipe or a device; remove it.")
    if (file := _gguf_in(name, path)) is not None:
        return describe_gguf(name, file)
    return describe(name, path, lambda: read_tensors(name, path), lambda file: (path / file).exists())


def describe(
    name: str, path: Path, tensors: Callable[[], Mapping[str, StoredTensor]], has: Callable[[str], bool]
) -> Checkpoint:
    """Describes a checkpoint of which only the small files need be in a folder.

    Args:
        name: As the user named it.
        path: The folder with config.json and the other small files.
        tensors: Gives what is stored, as the headers of the weight files say.
        has: True if the checkpoint, wherever it is, has a file of that name.

    Raises:
        CheckpointError: it is incomplete, or of a kind that is not supported.
    """
    config = read_json(name, path / "config.json")
    if config is None:
        raise missing_config_error(name, path)
    form, codes = format_of(name, config), None
    quantization = "" if form else _quantization(name, config)
    architecture = architecture_of(name, config)
    check_numbers(name, config)
    stored = tensors()
    if any(tensor.dtype.startswith("F8") for tensor in stored.values()):
        raise quantisation_error(name, "FP8")
    if form is not None:
        codes, stored = find_codes(name, form, stored)
        config = {key: value for key, value in config.items() if key != "quantization_config"}
    elif any(tensor.endswith(".qweight") for tensor in stored):
        raise quantisation_error(name, "GPTQ or AWQ")
    tokenizer_files.check_tokenizer(name, path, has)
    tokenizer_config = read_json(name, path / "tokenizer_config.json") or {}
    if "added_tokens_decoder" not in tokenizer_config:  # newer ones say it all there
        tokenizer_config |= read_json(name, path / "special_tokens_map.json") or {}
    checkpoint = Checkpoint(
        name=name,
        path=path,
        config=config,
        architecture=architecture,
        tensors=stored,
        quantization=quantization,
        generation_config=read_json(name, path / "generation_config.json") or {},
        tokenizer_config=tokenizer_config,
        chat_template=_chat_template(name, path, tokenizer_config),
        codes=codes,
    )
    check_ids(name, checkpoint.vocab, config, checkpoint.generation_config)
    return checkpoint


def describe_gguf(name: str, file: Path) -> Checkpoint:
    """Describes a model in GGUF.

    Args:
        name: As the user named it.
        file: The file, or any part of a split one.

    Raises:
        CheckpointError: it is foreign, damaged, incomplete, or of a kind that is not read.
    """
    model = open_gguf(name, file)
    template = model.tokenizer_config["chat_template"]
    return Checkpoint(
        name=name,
        path=model.files[0],
        config=model.config,
        architecture=model.config["architectures"][0],
        tensors=model.stored,
        generation_config={"eos_token_id": list(model.end_ids)},
        tokenizer_config=model.tokenizer_config,
        chat_template=template or None,
        gguf=model,
    )


def _gguf_in(name: str, folder: Path) -> Path | None:
    """Returns the GGUF model of a folder that has no safetensors; None if there is none.

    Raises:
        CheckpointError: there are several.
    """
    if (folder / "adapter_config.json").exists() or next(folder.glob("*.safetensors*"), None) is not None:
        return None
    files = models_in(folder)
    return folder / choose(name, [file.name for file in files], "") if files else None


def pair_refusal(a: Checkpoint, b: Checkpoint) -> str | None:
    """Tells why two models, whose logits are compared token by token, cannot pair; None if they can.

    They can if their tokenizers give every id the same token; padded embeddings do not matter.
    """
    if a.path == b.path or a.vocabulary()[0] == b.vocabulary()[0]:
        return None
    return (
        f"{a.name} and {b.name} have different vocabularies ({a.vocab:,} and {b.vocab:,} tokens), "
        "so their predictions cannot be compared; choose two models with the same tokenizer."
    )


def _quantization(name: str, config: Mapping[str, Any]) -> str:
    if isinstance(config.get("quantization"), dict):
        raise quantisation_error(name, "MLX")
    stored = config.get("quantization_config") or config.get("compression_config")
    if not isinstance(stored, dict):
        return ""
    kind = next((kind for kind in QUANTISATIONS.values() if kind.is_declared(stored)), None)
    method = str(stored.get("quant_method") or ("bitsandbytes" if kind else "an unknown format"))
    if not method.startswith("bitsandbytes") or kind is None:
        raise quantisation_error(name, method.upper() if " " not in method else method)
    return kind.name


def _token(value: object) -> str:
    """Reads a token's text, spelt as a string or as an object with `content`."""
    content = value.get("content") if isinstance(value, dict) else value
    return content if isinstance(content, str) else ""


def _chat_template(name: str, path: Path, tokenizer_config: Mapping[str, Any]) -> str | None:
    """Reads the template: chat_template.jinja, else chat_template.json or tokenizer_config.json."""
    file = path / "chat_template.jinja"
    if file.exists():
        try:
            if file.stat().st_size > _TEMPLATE_BYTES:
                raise CheckpointError(
                    f"{file.name} of {name} has more than {_TEMPLATE_BYTES:,} bytes; take another checkpoint."
                )
            return file.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise unreadable_error(name, file, error) from error
    stored = (read_json(name, path / "chat_template.json") or tokenizer_config).get("chat_template")
    if isinstance(stored, list):  # several named templates
        by_name = {t.get("name"): t.get("template") for t in stored if isinstance(t, dict)}
        stored = by_name.get("default", next(iter(by_name.values()), None))
    return stored if isinstance(stored, str) and stored else None
