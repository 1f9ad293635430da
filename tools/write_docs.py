"""Writes the generated documents and tables: `python -m tools.write_docs`, or `make docs`.

* README.md: the table of strategies;
* docs/strategies.md: the strategies' own docstrings and parameters;
* docs/keys.md: the table of keys, from the registry of actions;
* docs/configuration.md: the table of settings, from config.toml and its comments;
* docs/benchmarks.md: the tables, from the files in docs/measured/ that `edge-tui bench … --json` wrote;
* docs/verify.md: the table, from the file there that `edge-tui verify --json` wrote.

A test fails when one of them is stale.
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
from edge_tui.decoders.base import AnyParam, Column, Decoder
from edge_tui.decoders.core import chain, random
from edge_tui.decoders.registry.description import GROUPS, group_of
from edge_tui.decoders.registry.sampling import Sampling
from edge_tui.tui.key_help import key_table
from edge_tui.verify.finding import HEADER, Finding

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import ModuleType

ROOT = Path(__file__).parent.parent
README = ROOT / "README.md"
DOCS = ROOT / "docs"
MEASURED = DOCS / "measured"
TABLES = {"figures": report.FIGURES, "speed": report.SPEED, "table": report.TABLE, "quality": report.QUALITY}
_BUILDING_BLOCKS = (chain, temperature, penalties, random)
_SHARED = {"temperature", "repetition_penalty", "presence_penalty", "frequency_penalty", "order"}
"""Parameters of most strategies, which the README's table leaves out."""

_STRATEGIES = """\
# Strategies

Each is one file of [decoders/](../decoders); what follows is what those files say of themselves. `z` are the
model's logits for the next token, `p = softmax(z)`. The command line takes a parameter as
`--set name=value`, config.toml as a key of `[parameters]` or `[parameters.<strategy>]`; what is marked
*live* can be turned while the model writes.

"""

_CHAINS = """\
## Chains

A chain is typed as stages with `+` between them: `--strategy dry+typical+temperature+min_p`. The text is
the order and nothing is inserted, so a chain without `temperature` has none. `--strategy beam --chain
min_p`, or `beam:min_p`, puts stages around a strategy: penalties act on the model's logits, other stages on
what the strategy makes of them. A stage that stands twice is numbered, and so are its parameters:
`top_k+top_k#2` has `top_k` and `top_k_2`. config.toml, presets, `/infer` and OpenAI's endpoints take the
same names; a chain has 32 stages at most. A strategy that checks several tokens at once (speculative) takes
stages that do not look at the tokens before.

Plain names are presets of a chain: `top_p` is penalties, temperature and top-p, in the order that `order`
says. The workbench shows the chain above the parameters, and `S` edits it: `a` adds a stage, `x` removes
one, shift and an arrow (or `K`, `J`) move it, space mutes it, `t` and `l` put all into the order of
transformers or llama.cpp. Muting gives the parameters neutral values, also of a run in progress.

Stages: {stages}.
"""


def _chains() -> str:
    """Describes chains, and lists the stages."""
    stages = decoders.Registry.load().stages()
    return _CHAINS.format(stages=", ".join(f"`{stage.name}`" for stage in stages))


def strategies() -> str:
    """Writes strategies.md: each strategy, and what they are made of."""
    known = decoders.Registry.load().strategies()
    listed = [
        f"- {group}: {', '.join(f'[{name}](#{name})' for name in names)}"
        for group in GROUPS
        if (names := [decoder.name for decoder in known if group_of(decoder) == group])
    ]
    parts = [_STRATEGIES + "\n".join(listed) + "\n", _chains()]
    parts += [_strategy(decoder) for decoder in known]
    parts.append("## What they are made of\n")
    for module in _BUILDING_BLOCKS:
        file = Path(inspect.getfile(module)).resolve().relative_to(ROOT)
        text = "\n\n".join(part for part in _lead(module) if part)
        parts.append(f"### {file.stem}\n\n[{file.name}](../{file}) {text}\n")
    return "\n".join(parts)


def _strategy(decoder: Decoder) -> str:
    source: object = decoder.filter if isinstance(decoder, Sampling) else decoder
    module = sys.modules[type(source).__module__]
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
    if decoder.all_columns:
        lines += ["Recorded for each token:", "", *map(_column, decoder.all_columns), ""]
    return "\n".join([*lines, parameters(decoder.params), ""])


def _column(column: Column) -> str:
    return f"* `{column.name}`: {column.description()}"


def strategies_table() -> str:
    """Lists the strategies of the digit keys with the parameters of their own."""
    rows = ["| strategy | | parameters of its own |", "|---|---|---|"]
    for decoder in decoders.Registry.load().strategies()[:9]:
        own = [f"`{param.name}`" for param in decoder.params if param.name not in _SHARED]
        rows.append(f"| `{decoder.name}` | {decoder.summary} | {' '.join(own)} |")
    return "\n".join(rows)


def parameters(params: Sequence[AnyParam]) -> str:
    """Lists parameters with their defaults and ranges."""
    rows = ["| parameter | default | values | | |", "|---|---|---|---|---|"]
    for param in params:
        default, values = (text.replace("|", "\\|") for text in (param.default_text, param.limits()))
        live = "live" if param.live else "next run"
        rows.append(f"| `{param.name}` | {default} | {values} | {live} | {param.help} |")
    return "\n".join(rows)


def _lead(module: ModuleType) -> tuple[str, str]:
    """Splits a module's docstring into its first sentence and the rest; papers become links."""
    text = inspect.cleandoc(module.__doc__ or "")
    text = re.sub(r"arXiv (\d{4}\.\d{4,5})", r"[arXiv \1](https://arxiv.org/abs/\1)", text)
    head, _, body = text.partition("\n\n")
    return " ".join(head.split()), body


def settings() -> str:
    """Lists the settings: key, default, and config.toml's comment."""
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
    """Renders the results of a bench, and where each was measured; a sentence if there are none."""
    parts = []
    files = [json.loads(file.read_text(encoding="utf-8")) for file in sorted(MEASURED.glob(f"{kind}*.json"))]
    found = {
        row["figure"] for result in files for row in result.get("figures", ()) if row["value"] is not None
    }
    for result in files:
        versions = result["versions"]
        used = ", ".join(f"{name} {versions[name]}" for name in ("torch", "transformers") if versions[name])
        parts.append(f"{result['device_name']}, {used}, {result['date'][:10]}: `{result['command']}`")
        rows = result["rows"]
        if kind == "figures":  # a figure without a value is listed only where no device has one
            rows = [
                row for row in result["figures"] if row["value"] is not None or row["figure"] not in found
            ]
        parts.append(report.markdown_table(TABLES[kind], rows))
        if kind == "figures":
            parts.append(report.markdown_table(report.SPEED, result["rows"]))
        parts += [result["remark"]] if "remark" in result else []
        parts += ["\n".join(f"- {note}" for note in result["notes"])] if result["notes"] else []
    return "\n\n".join(parts) or "Not measured yet."


def verified() -> str:
    """Renders the findings of `edge-tui verify`, and the known disagreements."""
    results = json.loads((MEASURED / "verify.json").read_text(encoding="utf-8"))
    found = [Finding(**each) for each in results["findings"]]
    versions = ", ".join(f"{name} {number}" for name, number in results["versions"].items())
    rows = [HEADER, ("---",) * len(HEADER), *(each.cells() for each in found)]
    table = "\n".join(f"| {' | '.join(row)} |" for row in rows)
    known = sorted({f"- {each.strategy}: {sentence}" for each in found for sentence in each.disagreements})
    command = f"`edge-tui verify --cases {results['cases']}`: {versions}."
    return "\n\n".join([command, table, "Known disagreements:", "\n".join(known)])


def architectures() -> str:
    """Renders what each architecture of transformers can do here."""
    measured = json.loads((MEASURED / "architectures.json").read_text(encoding="utf-8"))
    file, why_not = MEASURED / "captured.json", {}
    runs = [each for each in measured["rows"] if each["tier"]]
    refused = len(measured["rows"]) - len(runs)
    count = f"transformers {measured['transformers']}: {len(runs)} run, {refused} are refused."
    if file.exists():
        captured = json.loads(file.read_text(encoding="utf-8"))
        why_not = captured["why_not"]
        machine = f"{captured['device']}, transformers {captured['transformers']}, {captured['precision']}"
        count += f" *captured*: its steps are replayed as CUDA graphs ({machine})."
    heads = [
        "model type",
        "class",
        "tier",
        "greedy",
        "beams",
        *(["captured"] if why_not else []),
        "what to know",
    ]
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for each in sorted(measured["rows"], key=lambda row: (not row["tier"], row["kind"])):
        cells = [each["kind"], each["architecture"], each["tier"] or "refused"]
        cells += [each["greedy"] or "–", each["beams"] or "–"]
        if why_not:
            cells.append(_is_captured(why_not.get(each["kind"])))
        lines.append(f"| {' | '.join(cells)} | {' '.join(each['notices'])} |")
    large = f"Not measured, because no tiny one could be made: {', '.join(measured['not_tiny'])}."
    return "\n\n".join([count, "\n".join(lines), large])


def _is_captured(why_not: str | None) -> str:
    """Words whether steps are captured, by the reason against it; None where there was no such row."""
    if why_not is None:
        return "–"
    if not why_not:
        return "yes"
    reason = why_not.rstrip(".").replace("|", "\\|")
    return reason if reason.startswith("not measured") else f"no: {reason}"


def fill(text: str, name: str, content: str) -> str:
    """Replaces the text between a document's markers.

    Raises:
        ValueError: the document has no markers of that name.
    """
    begin, end = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
    if begin not in text or end not in text:
        raise ValueError(f"there are no markers for {name}")
    return f"{text.partition(begin)[0]}{begin}\n{content}\n{end}{text.partition(end)[2]}"


def documents() -> dict[Path, str]:
    """Generates every document, by its path."""
    keys, configuration, benchmarks, verify, models = (
        DOCS / f"{name}.md" for name in ("keys", "configuration", "benchmarks", "verify", "architectures")
    )
    tables = [
        (README, "strategies", strategies_table()),
        (keys, "keys", key_table()),
        (configuration, "settings", settings()),
        *((benchmarks, kind, measured(kind)) for kind in TABLES),
        (verify, "findings", verified()),
        (models, "architectures", architectures()),
    ]
    written = {path: path.read_text(encoding="utf-8") for path, *_ in tables}
    for path, name, content in tables:
        written[path] = fill(written[path], name, content)
    return {DOCS / "strategies.md": strategies(), **written}


def main() -> None:
    """Writes the documents that changed."""
    for path, text in documents().items():
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")
            print(f"{path.relative_to(ROOT)} is new.")


if __name__ == "__main__":
    main()
