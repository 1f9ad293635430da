"""Declares the flags of `edge-tui bench`. Part of every start, so it imports nothing."""

from __future__ import annotations

from typing import Any

ARCHITECTURES = (
    "qwen2-0.5b, qwen2-1.5b, phi-3-mini, qwen2-7b, llama-2-7b, llama-3.2-1b, qwen3-30b-a3b, hunyuan-0.5b, "
    "hunyuan-7b, tiny"
)
_PRECISIONS = "auto, float32, bf16, fp16, int8, 4bit (default: "
_SECONDS = "most seconds of one decode (default: %(default)s)"


def _list(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def _flag(metavar: str, text: str, kind: Any = str, **options: Any) -> dict[str, Any]:
    return {"metavar": metavar, "help": text, "type": kind, "default": "", **options}


_FLAGS: dict[str, dict[str, Any]] = {
    "--models": _flag("A,B", "demo/expert, cached repositories, or folders", _list),
    "--random": _flag("A,B", f"random weights of an architecture's true size: {ARCHITECTURES}", _list),
    "--second": _flag("NAME", "amateur or draft, random if the models are (default: the model)"),
    "--second-device": _flag("D", "its device (default: --device)"),
    "--precisions": _flag("A,B", f"{_PRECISIONS}%(default)s)", _list, default="auto"),
    "--strategies": _flag("A,B", "strategies (default: %(default)s)", _list),
    "--chain": _flag("STAGES", "stages around each strategy, as in min_p+top_k"),
    "--set": _flag(
        "NAME=VALUE",
        "a parameter, for every strategy that has it; may be repeated",
        action="append",
        default=[],
    ),
    "--batches": _flag("N,M", "answers side by side (default: %(default)s)", _list, default="1"),
    "--peers": _flag("A,B", "eager, static or none (default: %(default)s)", _list),
    "--context": _flag("N,M", "tokens of the prompt (default: %(default)s)", default="64"),
    "--tokens": _flag("N", "new tokens (default: %(default)s)", int, default=256),
    "--rounds": _flag("N", "counted rounds (default: %(default)s)", int, default=3),
    "--seconds": _flag("S", _SECONDS, float, default="3"),
    "--text": _flag("FILE", "text for the perplexity"),
    "--dataset": _flag("NAME", "the same from datasets: name[:configuration[:split]]"),
    "--qa": _flag("FILE", "questions and answers, JSON lines, for F1"),
    "--questions": _flag("N", "how many (default: %(default)s)", int, default=50),
    "--answer": _flag("N", "most tokens of an answer", int, default=32),
    "--window": _flag("N", "tokens seen at once", int, default=1024),
    "--stride": _flag("N", "how far the window moves", int, default=512),
    "--text-tokens": _flag("N", "most tokens of the text", int, default=16384),
    "--only": _flag("TEXT", "scenarios whose name holds this text"),
    "--device": _flag("D", "auto, cpu, cuda or cuda:N", default="auto"),
    "--budget": _flag("S", "begin nothing new after so many seconds", float, default=0.0),
    "--json": _flag("FILE", "keep results there (default: a new file in the data folder)", dest="json_file"),
    "--markdown": _flag("FILE", "write the table there at the end"),
    "--csv": _flag("FILE", "the same for spreadsheets"),
}
_MODELS = (
    *("--models", "--random", "--second", "--second-device"),
    *("--precisions", "--strategies", "--chain", "--set"),
)
_ROUNDS = ("--rounds", "--seconds")
_FILES = ("--json", "--markdown", "--csv")
_BENCHES: dict[str, tuple[str, tuple[str, ...], dict[str, dict[str, Any]]]] = {
    "speed": (
        "tokens per second, share of the hardware's floor, ratio to generate()",
        (*_MODELS, "--peers", "--context", "--tokens", *_ROUNDS),
        {"--strategies": {"default": "greedy"}, "--peers": {"default": "eager"}},
    ),
    "table": (
        "speed, memory and time to first token by model, strategy and batch size",
        (*_MODELS, "--batches", "--peers", "--context", "--tokens", *_ROUNDS),
        {
            "--strategies": {"default": "greedy,beam,top_k,top_p"},
            "--peers": {"default": "none"},
            "--context": {"metavar": "N"},
        },
    ),
    "quality": (
        "perplexity, F1 and speed by precision and strategy",
        (
            *(*_MODELS, "--text", "--dataset", "--qa", "--questions"),
            *("--answer", "--window", "--stride", "--text-tokens"),
        ),
        {
            "--precisions": {
                "default": "",
                "help": f"{_PRECISIONS}fp16, on a CPU float32, then int8 and 4bit)",
            },
            "--strategies": {"default": "greedy,beam"},
        },
    ),
    "compare": (
        "the ratios of the results of two benches",
        (),
        {"--json": {"help": "write the ratios there"}},
    ),
    "figures": ("the whole table of figures that the engine is held to", ("--only", *_ROUNDS), {}),
}
"""Each bench: its summary, its own flags, and where they differ from `_FLAGS`."""


def add(commands: Any) -> None:
    """Adds the `bench` command with its own subcommands."""
    bench = commands.add_parser(
        "bench",
        help="measure speed and quality",
        description="Measures the engine: against the hardware, against generate(), and for quality.",
        allow_abbrev=False,
    )
    kinds = bench.add_subparsers(dest="bench", metavar="KIND", title="benches", required=True)
    for name, (summary, flags, differences) in _BENCHES.items():
        kind = kinds.add_parser(
            name, help=summary, description=summary[0].upper() + summary[1:] + ".", allow_abbrev=False
        )
        text = kind.add_mutually_exclusive_group() if name == "quality" else kind
        if name == "compare":
            kind.add_argument("a", metavar="A", help="a file that --json has written")
            kind.add_argument("b", metavar="B", help="another")
            flags = _FILES
        else:
            flags = (*flags, "--device", "--budget", "--quiet", *_FILES)
        for flag in flags:
            if flag == "--quiet":
                kind.add_argument("-q", flag, action="store_true", help="no progress on standard error")
            else:
                to = text if flag in ("--text", "--dataset") else kind
                to.add_argument(flag, **_FLAGS[flag] | differences.get(flag, {}))
