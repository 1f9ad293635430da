"""Trains, exports and evaluates the demo pair: two small language models of Python source.

``edge_tui/demo/expert`` and ``edge_tui/demo/amateur`` are ordinary Llama checkpoints that share
one tokenizer. They are trained from nothing but the Python standard library's own source, so the
workbench has a pair to decode with before anything is downloaded::

    python tools/train_demo.py prepare      # corpus -> tokenizer and token arrays, about a minute
    python tools/train_demo.py train        # both models; one GPU: 9 minutes; a CPU: --minutes 600
    python tools/train_demo.py evaluate     # bits per byte on the held-out files (CPU is enough)
    python tools/train_demo.py sample       # greedy and sampled continuations of a prompt

``train`` checkpoints weights, optimizer state and the clock into the work folder, so running it
again continues where it stopped; delete ``<work>/*.pt`` to start over. It exports when the time
is used up. The model cards are written by hand: after a retraining, run ``evaluate`` and copy
its figures.

**Corpus.** Every ``*.py`` file of the running interpreter's ``Lib`` folder, tests included, less:
``site-packages`` and byte-identical copies; the generated tables (charmap codecs and
``pydoc_data/topics.py``), which are data rather than code; and files that don't decode as their
own coding line says. A hash of the path under ``Lib`` puts a file into one of three splits:
*train*, *validation* (1 %: chooses which weights are kept) and *held-out* (2.5 %: read by
``evaluate`` alone). The tokenizer sees the train split only. Hashing the path, not the text, means
that a held-out file stays held out in the next Python version.

Training needs PyTorch 2.9 or later (its Muon); the other commands run on any the package supports.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import re
import sysconfig
import time
import tokenize
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

Split = Literal["train", "validation", "heldout"]

ROOT = Path(__file__).resolve().parent.parent
DEMO = ROOT / "edge_tui" / "demo"
EOS = "<|endoftext|>"
VOCAB_SIZE = 4096
CONTEXT = 2048
ROPE_THETA = 10_000.0
NORM_EPS = 1e-5

# A newline and the indentation after it are one token: a block opens in a single decision. They
# are never glued to the colon before them, so a prompt may end in ``def f(n):``. One leading
# symbol joins a word (``.append``, ``_name``), which suits dotted and snake_case names.
TOKEN_PATTERN = r"[^\s\p{L}\p{N}]?\p{L}+| \p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+|\s*[\r\n]+[ \t]*|\s+(?!\S)|\s+"


@dataclass(frozen=True)
class Shape:
    """Describes the size of one model, and its share of the training time."""

    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int
    time_share: float
    dropout: float


# Wide and shallow: on a CPU an operation costs microseconds whatever its size.
SHAPES = {
    "amateur": Shape(96, 256, 2, 3, 1, 32, time_share=0.15, dropout=0.0),
    "expert": Shape(256, 640, 6, 8, 2, 32, time_share=0.85, dropout=0.15),
}


# --- corpus -------------------------------------------------------------------------------------


def split_of(relative: str) -> Split:
    """Tells which split a file belongs to, by its path under ``Lib``."""
    bucket = int.from_bytes(hashlib.sha256(relative.encode()).digest()[:4]) % 1000
    return "heldout" if bucket < 25 else "validation" if bucket < 35 else "train"


def corpus(lib: Path, split: Split) -> Iterator[tuple[str, str]]:
    """Yields ``(path, text)`` for the files of one split, in path order."""
    seen: set[bytes] = set()
    for path in sorted(lib.rglob("*.py")):
        relative = path.relative_to(lib).as_posix()
        if re.search(r"(site|dist)-packages/|^pydoc_data/topics", relative):
            continue
        try:
            with tokenize.open(path) as file:
                text = file.read()
        except (SyntaxError, UnicodeError):
            continue  # deliberately broken test data
        digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()
        charmap = relative.startswith("encodings/") and "\ndecoding_" in text
        if not text or charmap or digest in seen:
            continue
        seen.add(digest)  # across splits: a held-out text never has a copy in training
        if split_of(relative) == split:
            yield relative, text


def prepare(lib: Path, work: Path) -> None:
    """Trains the tokenizer, and writes it and the token arrays into ``work``."""
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

    work.mkdir(parents=True, exist_ok=True)
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(TOKEN_PATTERN), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCAB_SIZE,
        special_tokens=[EOS],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    texts = [text for _, text in corpus(lib, "train")]
    tokenizer.train_from_iterator(texts, trainer)
    # Pretty-printing would double the size of a file that ships twice.
    (work / "tokenizer.json").write_text(tokenizer.to_str(pretty=False), encoding="utf-8")
    splits: tuple[Split, ...] = ("train", "validation")
    for split in splits:
        texts = [text for _, text in corpus(lib, split)]
        size = sum(len(text.encode()) for text in texts)
        eos = tokenizer.token_to_id(EOS)
        encoded = tokenizer.encode_batch(texts, add_special_tokens=False)
        ids = torch.tensor([i for e in encoded for i in (*e.ids, eos)], dtype=torch.int16)
        torch.save({"ids": ids, "bytes": size}, work / f"{split}.tokens.pt")
        print(f"{split}: {len(texts)} files, {size:,} bytes, {len(ids):,} tokens")


# --- model: Llama, with dropout and with the parameter names of the exported checkpoint ----------


class Block(nn.Module):
    """Computes one pre-norm transformer block."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        size, inner = shape.hidden_size, shape.intermediate_size
        query, key = (
            heads * shape.head_dim for heads in (shape.num_attention_heads, shape.num_key_value_heads)
        )
        self.self_attn = nn.ModuleDict(
            {
                "q_proj": nn.Linear(size, query, bias=False),
                "k_proj": nn.Linear(size, key, bias=False),
                "v_proj": nn.Linear(size, key, bias=False),
                "o_proj": nn.Linear(query, size, bias=False),
            }
        )
        self.mlp = nn.ModuleDict(
            {
                "gate_proj": nn.Linear(size, inner, bias=False),
                "up_proj": nn.Linear(size, inner, bias=False),
                "down_proj": nn.Linear(inner, size, bias=False),
            }
        )
        self.input_layernorm = nn.RMSNorm(size, eps=NORM_EPS)
        self.post_attention_layernorm = nn.RMSNorm(size, eps=NORM_EPS)
        self.dropout = nn.Dropout(shape.dropout)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        """Applies attention and the feed-forward layer, each around a residual connection."""

        def heads(name: str) -> Tensor:
            flat = cast("Tensor", self.self_attn[name](h))
            return flat.view(*h.shape[:2], -1, self.shape.head_dim).transpose(1, 2)

        def rotate(y: Tensor) -> Tensor:
            a, b = y.chunk(2, dim=-1)
            return y * cos + torch.cat((-b, a), dim=-1) * sin

        h = self.input_layernorm(x)
        q, k, v = rotate(heads("q_proj")), rotate(heads("k_proj")), heads("v_proj")
        attended = F.scaled_dot_product_attention(
            q.type_as(v), k.type_as(v), v, is_causal=True, enable_gqa=True
        )
        x = x + self.dropout(self.self_attn["o_proj"](attended.transpose(1, 2).flatten(2)))
        h = self.post_attention_layernorm(x)
        h = F.silu(self.mlp["gate_proj"](h)) * self.mlp["up_proj"](h)
        return cast("Tensor", x + self.dropout(self.mlp["down_proj"](h)))


class LanguageModel(nn.Module):
    """Computes a Llama with tied embeddings; ``forward`` gives the mean loss of next-token prediction."""

    cos: Tensor
    sin: Tensor

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.embed_tokens = nn.Embedding(VOCAB_SIZE, shape.hidden_size)
        self.layers = nn.ModuleList(Block(shape) for _ in range(shape.num_hidden_layers))
        self.norm = nn.RMSNorm(shape.hidden_size, eps=NORM_EPS)
        self.dropout = nn.Dropout(shape.dropout)
        steps = torch.arange(0, shape.head_dim, 2) / shape.head_dim
        angles = torch.outer(torch.arange(CONTEXT), ROPE_THETA**-steps).repeat(1, 2)
        self.register_buffer("cos", angles.cos(), persistent=False)
        self.register_buffer("sin", angles.sin(), persistent=False)
        for name, parameter in self.named_parameters():
            if parameter.ndim == 2:
                residual = name.endswith(("o_proj.weight", "down_proj.weight"))
                std = 0.02 / math.sqrt(2 * shape.num_hidden_layers) if residual else 0.02
                nn.init.normal_(parameter, std=std)

    def logits(self, ids: Tensor) -> Tensor:
        """Scores every next token for each position of ``ids`` (batch, length)."""
        x = self.dropout(self.embed_tokens(ids))
        cos, sin = self.cos[: ids.shape[1]], self.sin[: ids.shape[1]]
        for layer in self.layers:
            x = layer(x, cos, sin)
        return F.linear(self.norm(x), self.embed_tokens.weight)

    def forward(self, ids: Tensor) -> Tensor:
        """Computes the mean cross-entropy, in nats, of ``ids[:, 1:]`` given what comes before."""
        logits = self.logits(ids[:, :-1])
        return F.cross_entropy(logits.flatten(0, 1).float(), ids[:, 1:].flatten())


# --- training -----------------------------------------------------------------------------------


def optimizers(model: LanguageModel, rate: float) -> list[torch.optim.Optimizer]:
    """Makes Muon for the matrices inside the blocks, AdamW for the embedding and the norms."""
    matrices = [p for p in model.layers.parameters() if p.ndim == 2]
    vectors = [p for p in model.parameters() if p.ndim == 1]
    muon = torch.optim.Muon(matrices, lr=rate, weight_decay=0.1, adjust_lr_fn="match_rms_adamw")
    groups = [
        {"params": [model.embed_tokens.weight], "weight_decay": 0.1},
        {"params": vectors, "weight_decay": 0.0},
    ]
    return [muon, torch.optim.AdamW(groups, lr=rate, betas=(0.9, 0.95))]


def schedule(progress: float) -> float:
    """Computes the learning-rate factor: a short warm-up, a plateau, then a slide to zero."""
    return max(0.0, min(1.0, progress / 0.01, (1 - progress) / 0.6))


@torch.no_grad()
def validate(model: LanguageModel, ids: Tensor, size: int, precision: Any) -> float:
    """Computes rough bits per byte over consecutive windows (``evaluate`` is the exact measure)."""
    model.eval()
    nats = 0.0
    for begin in range(0, len(ids) - 1, CONTEXT):
        window = ids[None, begin : begin + CONTEXT + 1]
        with precision:
            nats += model(window).item() * (window.shape[1] - 1)
    model.train()
    return nats / math.log(2) / size


def train(name: str, work: Path, out: Path, minutes: float, batch: int, rate: float) -> None:
    """Trains one model until its share of the time is used up, then exports its best weights."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    shape, budget = SHAPES[name], SHAPES[name].time_share * minutes * 60
    torch.manual_seed(0)
    torch.set_float32_matmul_precision("high")
    on_gpu = device.type == "cuda"
    precision = torch.autocast("cuda", torch.bfloat16) if on_gpu else nullcontext()
    data, held = (torch.load(work / f"{s}.tokens.pt") for s in ("train", "validation"))
    ids, held_ids = data["ids"].to(device), held["ids"].long().to(device)

    model = LanguageModel(shape).to(device)
    opts = optimizers(model, rate)
    step, spent, best, best_weights = 0, 0.0, math.inf, model.state_dict()
    checkpoint = work / f"{name}.pt"
    if checkpoint.exists():
        state = torch.load(checkpoint, map_location=device)
        model.load_state_dict(state["model"])
        for opt, saved in zip(opts, state["optimizers"], strict=True):
            opt.load_state_dict(saved)
        step, spent, best, best_weights = (state[k] for k in ("step", "spent", "best", "weights"))
    torch.manual_seed(step)  # a continued run draws new windows
    compiled = torch.compile(model) if on_gpu else model
    offsets = torch.arange(CONTEXT + 1, device=device)
    count = sum(p.numel() for p in model.parameters())
    print(f"{name}: {count:,} parameters, {budget - spent:.0f} s on {device.type}", flush=True)

    previous, next_report = time.monotonic(), spent
    while spent < budget:
        for group in (group for opt in opts for group in opt.param_groups):
            group["lr"] = rate * schedule(spent / budget)
        starts = torch.randint(len(ids) - CONTEXT, (batch, 1), device=device)
        with precision:
            loss = compiled(ids[starts + offsets].long())
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for opt in opts:
            opt.step()
            opt.zero_grad()
        step += 1
        if on_gpu and step % 20 == 0:
            torch.cuda.synchronize()  # keeps the clock honest
        spent, previous = spent + time.monotonic() - previous, time.monotonic()
        if spent >= min(next_report, budget):
            bits = validate(model, held_ids, held["bytes"], precision)
            if bits < best:
                best = bits
                best_weights = {k: v.detach().clone() for k, v in model.state_dict().items()}
            epoch = step * batch * CONTEXT / len(ids)
            print(
                f"{name} {spent:6.1f} s  step {step:6d}  epoch {epoch:6.1f}"
                f"  loss {loss.item():.3f}  validation {bits:.4f} bits/byte",
                flush=True,
            )
            state = {"model": model.state_dict(), "optimizers": [o.state_dict() for o in opts]}
            state |= {"step": step, "spent": spent, "best": best, "weights": best_weights}
            torch.save(state, checkpoint.with_suffix(".tmp"))
            checkpoint.with_suffix(".tmp").replace(checkpoint)  # never half a checkpoint
            next_report = spent + budget / 24
    export(name, best_weights, work / "tokenizer.json", out / name)


def export(name: str, weights: dict[str, Tensor], tokenizer: Path, out: Path) -> None:
    """Writes one model as a Hugging Face folder with weights in bfloat16."""
    from safetensors.torch import save_file

    out.mkdir(parents=True, exist_ok=True)
    tensors = {f"model.{k}": v.detach().to("cpu", torch.bfloat16) for k, v in weights.items()}
    save_file(tensors, out / "model.safetensors", metadata={"format": "pt"})
    sizes = {k: v for k, v in asdict(SHAPES[name]).items() if k not in ("time_share", "dropout")}
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": VOCAB_SIZE,
        **sizes,
        "max_position_embeddings": CONTEXT,
        "rms_norm_eps": NORM_EPS,
        "rope_theta": ROPE_THETA,
        "hidden_act": "silu",
        "attention_bias": False,
        "mlp_bias": False,
        "tie_word_embeddings": True,
        "bos_token_id": None,
        "eos_token_id": 0,
        "torch_dtype": "bfloat16",
    }
    tokenizer_config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "eos_token": EOS,
        "pad_token": EOS,
        "model_max_length": CONTEXT,
        "clean_up_tokenization_spaces": False,
    }
    generation_config = {"eos_token_id": 0, "pad_token_id": 0}
    for file, content in (
        ("config.json", config),
        ("tokenizer_config.json", tokenizer_config),
        ("generation_config.json", generation_config),
    ):
        (out / file).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    (out / "tokenizer.json").write_bytes(tokenizer.read_bytes())


# --- evaluation of an exported checkpoint, through transformers -----------------------------------


def load(folder: Path) -> tuple[Any, Any]:
    """Loads an exported checkpoint and its tokenizer, computing in float32."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    return model.eval(), AutoTokenizer.from_pretrained(folder)


def encode(tokenizer: Any, text: str) -> Tensor:
    """Encodes the tokens of a whole file, after an end-of-text token."""
    return torch.tensor([tokenizer.eos_token_id, *tokenizer(text, verbose=False)["input_ids"]])


def runs(ids: Tensor, length: int = 24) -> Tensor:
    """Computes a 64-bit hash of every run of ``length`` consecutive tokens."""
    count = max(0, len(ids) - length + 1)
    hashes = torch.zeros(count, dtype=torch.int64)
    for offset in range(length):
        hashes = hashes * 1_000_003 + ids[offset : offset + count]  # wraps around on purpose
    return hashes


def distinct(lib: Path, tokenizer: Any, texts: Sequence[str]) -> list[str]:
    """Keeps the texts that share under 2 % of their token runs with the training files.

    The library repeats itself (licence headers, sibling modules, copied tests), so holding out
    whole files does not by itself hold out all they say.
    """
    seen = torch.cat([runs(encode(tokenizer, text)) for _, text in corpus(lib, "train")])
    shared = [torch.isin(runs(encode(tokenizer, text)), seen).float() for text in texts]
    return [t for t, s in zip(texts, shared, strict=True) if len(s) and s.mean().item() < 0.02]


@torch.no_grad()
def bits_per_byte(model: Any, tokenizer: Any, texts: Sequence[str]) -> float:
    """Computes the model's code length of ``texts`` in bits, per byte of UTF-8.

    Every text is scored whole, after an end-of-text token. Windows overlap by half, so past the
    first window each token is predicted from at least half a context.
    """
    nats, size = 0.0, 0
    for text in texts:
        ids = encode(tokenizer, text)
        size += len(text.encode())
        done = 1
        while done < len(ids):
            begin = max(0, done - CONTEXT // 2)
            end = min(begin + CONTEXT, len(ids))
            logits = model(ids[None, begin : end - 1]).logits[0, done - 1 - begin :]
            nats += F.cross_entropy(logits, ids[done:end], reduction="sum").item()
            done = end
    return nats / math.log(2) / size


def evaluate(lib: Path, out: Path, limit: int | None, only_distinct: bool) -> None:
    """Prints the bits per byte of both models on the held-out files."""
    texts = [text for _, text in corpus(lib, "heldout")][:limit]
    if only_distinct:
        texts = distinct(lib, load(out / "expert")[1], texts)
    print(f"held out: {len(texts)} files, {sum(len(t.encode()) for t in texts):,} bytes")
    for name in ("expert", "amateur"):
        model, tokenizer = load(out / name)
        print(f"{name:8}{model.num_parameters():>10,} parameters", end="", flush=True)
        print(f"  {bits_per_byte(model, tokenizer, texts):.3f} bits per byte")


def sample(out: Path, prompt: str, tokens: int) -> None:
    """Prints each model's greedy and one sampled continuation of ``prompt``."""
    for name in ("expert", "amateur"):
        model, tokenizer = load(out / name)
        inputs = tokenizer(prompt, return_tensors="pt", return_token_type_ids=False)
        for strategy in ({"do_sample": False}, {"do_sample": True, "top_p": 0.95, "top_k": 0}):
            torch.manual_seed(0)
            begin = time.monotonic()
            ids = model.generate(**inputs, max_new_tokens=tokens, **strategy)[0]
            speed = (len(ids) - inputs["input_ids"].shape[1]) / (time.monotonic() - begin)
            print(f"\n=== {name} {strategy} ({speed:.0f} tokens/s)\n{tokenizer.decode(ids)}")


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs one command."""
    description, _, details = (__doc__ or "").partition("\n")
    parser = argparse.ArgumentParser(
        description=description,
        epilog=details,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("command", choices=("prepare", "train", "evaluate", "sample"))
    stdlib = Path(sysconfig.get_path("stdlib"))
    parser.add_argument("--corpus", type=Path, default=stdlib, help="a Python's Lib folder")
    parser.add_argument("--work", type=Path, default=ROOT / ".demo-corpus", help="work folder")
    parser.add_argument("--out", type=Path, default=DEMO, help="where the two checkpoints are")
    parser.add_argument("--minutes", type=float, default=8.3, help="train: time for both models")
    parser.add_argument("--batch", type=int, default=32, help="train: windows in a step")
    parser.add_argument("--rate", type=float, default=6e-3, help="train: peak learning rate")
    parser.add_argument("--limit", type=int, help="evaluate: only the first so many files")
    parser.add_argument(
        "--distinct", action="store_true", help="evaluate: leave out near copies of training text"
    )
    parser.add_argument("--prompt", default="def fibonacci(n):", help="sample: what to continue")
    parser.add_argument("--tokens", type=int, default=200, help="sample: how many tokens")
    args = parser.parse_args(arguments)
    if args.command == "prepare":
        prepare(args.corpus, args.work)
    elif args.command == "train":
        for name in SHAPES:
            train(name, args.work, args.out, args.minutes, args.batch, args.rate)
    elif args.command == "evaluate":
        evaluate(args.corpus, args.out, args.limit, args.distinct)
    else:
        sample(args.out, args.prompt, args.tokens)


if __name__ == "__main__":
    main()
