"""Write what in `docs/` follows from the code: `python tools/write_docs.py`, or `make docs`.

* `strategies.md` from the strategies' own docstrings and parameters;
* the table of settings in `configuration.md` from config.toml and its comments;
* the tables in `benchmarks.md` from the files in `docs/measured/`, which `edge-tui bench … --json` wrote.

A test fails when one of them is not what this would write.
"""

from __future__ import annotations

import inspect
import json
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tomli

from edge_tui import decoders
from edge_tui.bench import report
from edge_tui.decoders import penalties, temperature
from edge_tui.decoders.base import Decoder, Param
from edge_tui.decoders.core import chain, random
from edge_tui.decoders.registry.sampling import Sampling

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import ModuleType

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
MEASURED = DOCS / "measured"
TABLES = {"figures": report.FIGURES, "speed": report.SPEED, "table": report.TABLE, "quality": report.QUALITY}
_BUILDING_BLOCKS = (chain, temperature, penalties, random)

_STRATEGIES = """\
# Strategies

Each is one file of [decoders/](../decoders); what follows is what those files say of themselves. `z` are the
model's logits for the next token, `p = softmax(z)`. The command line takes a parameter as
`--set name=value`, config.toml as a key of `[parameters]` or `[parameters.<strategy>]`; what is marked
*live* can be turned while the model writes.

"""


def strategies() -> str:
    """All of `strategies.md`."""
    known = decoders.Registry.load().strategies()
    listed = ", ".join(f"[{decoder.name}](#{decoder.name})" for decoder in known)
    parts = [_STRATEGIES + f"{listed}.\n"]
    parts += [_strategy(decoder) for decoder in known]
    parts.append("## What they are made of\n")
    for module in _BUILDING_BLOCKS:
        name = module.__name__.partition(".")[2]
        said = "\n\n".join(part for part in _lead(module) if part)
        parts.append(f"### {name}\n\n[{name}.py](../decoders/{name}.py) {said}\n")
    return "\n".join(parts)


def _strategy(decoder: Decoder) -> str:
    maker: object = decoder.filter if isinstance(decoder, Sampling) else decoder
    module = sys.modules[type(maker).__module__]
    head, body = _lead(module)
    file = Path(inspect.getfile(module))
    lines = [
        f"## {decoder.name}",
        "",
        f"*{decoder.summary}* [{file.name}](../decoders/{file.name})",
        "",
        head,
        "",
    ]
    if body:
        lines += [body, ""]
    if decoder.roles != ("model",):
        lines += [f"Models: {', '.join(decoder.roles)}.", ""]
    if decoder.columns:
        lines += [f"Recorded for each token: {', '.join(f'`{name}`' for name in decoder.columns)}.", ""]
    return "\n".join([*lines, parameters(decoder.params), ""])


def parameters(params: Sequence[Param]) -> str:
    """A table of parameters."""
    rows = ["| parameter | default | values | | |", "|---|---|---|---|---|"]
    for param in params:
        values = param.range().replace("|", "\\|")
        live = "live" if param.live else "next run"
        rows.append(f"| `{param.name}` | {param.format(param.default)} | {values} | {live} | {param.help} |")
    return "\n".join(rows)


def _lead(module: ModuleType) -> tuple[str, str]:
    """A module's first sentence and the rest, with papers as links."""
    text = inspect.cleandoc(module.__doc__ or "")
    text = re.sub(r"arXiv (\d{4}\.\d{4,5})", r"[arXiv \1](https://arxiv.org/abs/\1)", text)
    head, _, body = text.partition("\n\n")
    return " ".join(head.split()), body


def settings() -> str:
    """The table of settings: key, default, and what config.toml says about it."""
    text = (ROOT / "config.toml").read_text(encoding="utf-8")
    document = tomli.loads(text)
    rows = ["| key | default | |", "|---|---|---|"]
    table, comment = "", []
    for line in text.splitlines():
        if line.startswith("#"):
            comment.append(line.lstrip("# "))
        elif found := re.fullmatch(r"\[([\w.]+)\]", line):
            table, comment = f"{found[1]}.", []
        elif (found := re.match(r"(\w+)\s*=", line)) and not table.startswith("parameters"):
            key = table + found[1]
            value: Any = document
            for part in key.split("."):
                value = value[part]
            rows.append(f"| `{key}` | `{json.dumps(value)}` | {' '.join(comment)} |")
            comment = []
        elif not line.strip():
            comment = []
    return "\n".join(rows)


def measured(kind: str) -> str:
    """The table of a kept bench, and where it was measured; a sentence if there is none."""
    parts = []
    files = [json.loads(file.read_text(encoding="utf-8")) for file in sorted(MEASURED.glob(f"{kind}*.json"))]
    reached = {row["figure"] for kept in files for row in kept.get("figures", ()) if row["value"] is not None}
    for kept in files:
        versions = kept["versions"]
        used = ", ".join(f"{name} {versions[name]}" for name in ("torch", "transformers") if versions[name])
        parts.append(f"{kept['device_name']}, {used}, {kept['date'][:10]}: `{kept['command']}`")
        rows = kept["rows"]
        if kind == "figures":  # what this device could not give, and another has given, is said there
            rows = [
                row for row in kept["figures"] if row["value"] is not None or row["figure"] not in reached
            ]
        parts.append(report.markdown(TABLES[kind], rows))
        if kind == "figures":
            parts.append(report.markdown(report.SPEED, kept["rows"]))
        parts += [kept["remark"]] if "remark" in kept else []
        parts += ["\n".join(f"- {note}" for note in kept["notes"])] if kept["notes"] else []
    return "\n\n".join(parts) or "Not measured yet."


def fill(text: str, name: str, content: str) -> str:
    """Replaces what stands between a document's markers.

    Raises:
        ValueError: it has none of that name.
    """
    begin, end = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
    if begin not in text or end not in text:
        raise ValueError(f"there are no markers for {name}")
    return f"{text.partition(begin)[0]}{begin}\n{content}\n{end}{text.partition(end)[2]}"


def documents() -> dict[Path, str]:
    """Every generated document as it should be."""
    configuration, benchmarks = DOCS / "configuration.md", DOCS / "benchmarks.md"
    tables = benchmarks.read_text(encoding="utf-8")
    for kind in TABLES:
        tables = fill(tables, kind, measured(kind))
    return {
        DOCS / "strategies.md": strategies(),
        configuration: fill(configuration.read_text(encoding="utf-8"), "settings", settings()),
        benchmarks: tables,
    }


def main() -> None:
    """Write the documents that changed."""
    for path, text in documents().items():
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")
            print(f"{path.relative_to(ROOT)} is new.")


if __name__ == "__main__":
    main()
