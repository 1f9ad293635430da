"""The generated documents are fresh, and their sources are read rightly."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import tomli

from edge_tui import decoders
from edge_tui.bench.report import Results
from edge_tui.verify import verify
from tools import write_docs


def test_generated_documents_are_fresh() -> None:
    for path, text in write_docs.documents().items():
        assert path.read_text(encoding="utf-8") == text, f"{path.name} is stale: write it anew with make docs"


def test_every_strategy_and_parameter_is_listed() -> None:
    text = write_docs.strategies()
    for decoder in decoders.Registry.load().strategies():
        assert f"\n## {decoder.name}\n" in text
        defaults = {param.name: param.default_text.replace("|", "\\|") for param in decoder.params}
        assert all(f"| `{name}` | {default} |" in text for name, default in defaults.items())
    assert "https://arxiv.org/abs/1904.09751" in text


def test_the_findings_of_verify_are_those_of_every_strategy_and_stage() -> None:
    """In the order of the list, each with a reference, all in agreement."""
    findings = json.loads((write_docs.MEASURED / "verify.json").read_text(encoding="utf-8"))["findings"]
    rows = write_docs.verified().splitlines()
    listed = dict.fromkeys(each["strategy"] for each in findings)
    assert list(listed) == [subject.name for subject in verify.find(())], "run edge-tui verify --json anew"
    for name in listed:
        references = {each["reference"] for each in findings if each["strategy"] == name}
        assert references - {"properties"}, f"{name} has no reference"
        assert sum(row.startswith(f"| {name} |") for row in rows) == len(references)
    assert not [each for each in findings if each["faults"]]


def test_every_setting_is_listed() -> None:
    document = tomli.loads((write_docs.ROOT / "config.toml").read_text(encoding="utf-8"))
    rows = write_docs.settings()
    for key, value in document.items():
        if key in ("parameters", "keys"):
            continue
        names = [f"{key}.{name}" for name in value] if isinstance(value, dict) else [key]
        for name in names:
            (row,) = (row for row in rows.splitlines() if row.startswith(f"| `{name}` |"))
            assert len(row.split("|")[3].strip()) > 5, f"config.toml does not say what {name} is"


def test_saved_benches_become_tables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(write_docs, "MEASURED", tmp_path)
    assert write_docs.measured("figures") == "Not measured yet."
    results = Results("figures", tmp_path / "figures-x.json")
    results.head |= {
        "device_name": "A GPU",
        "date": "2030-01-02T03:04:05",
        "command": "edge-tui bench figures",
    }
    results.head |= {"versions": {"torch": "9", "transformers": None}}
    figure = {
        "figure": "speed",
        "value": 12.5,
        "unit": "×",
        "must": "≥ 3 ×",
        "aim": "–",
        "verdict": "reached",
    }
    results.head["figures"] = [figure, {**figure, "figure": "more", "value": None, "verdict": "not measured"}]
    missing = dict.fromkeys(("of_floor", "ratio", "peak", "setup"), math.nan)
    known = {"model": "m", "precision": "int8", "strategy": "s", "who": "w", "step": 0.002}
    results.rows.append({**known, "tokens_per_second": 500.0, "spread": 0.01, "first": 0.03, **missing})
    results.note("Something was in the way.")
    text = write_docs.measured("figures")
    assert "A GPU, torch 9, 2030-01-02: `edge-tui bench figures`" in text
    assert "| speed | 12.500 × | ≥ 3 × | – | reached |" in text
    assert "| more | – | ≥ 3 × | – | not measured |" in text
    assert "- Something was in the way." in text
    assert "| m | int8 | s | w | 500.0 | 2.000 | 1.0 % | – | 30.0 | – | – | – |" in text
    assert json.loads((tmp_path / "figures-x.json").read_text())["rows"][0]["of_floor"] is None


def test_a_document_without_its_markers_is_refused() -> None:
    with pytest.raises(ValueError, match="no markers for x"):
        write_docs.fill("<!-- x: begin -->", "x", "")
    assert write_docs.fill("a<!-- x: begin -->old<!-- x: end -->b", "x", "new").count("new") == 1


def test_the_table_of_architectures_says_which_are_captured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = json.loads((write_docs.MEASURED / "architectures.json").read_text(encoding="utf-8"))
    (tmp_path / "architectures.json").write_text(json.dumps(rows), encoding="utf-8")
    monkeypatch.setattr(write_docs, "MEASURED", tmp_path)
    assert "captured" not in write_docs.architectures()
    why_not = {
        "llama": "",
        "mamba": "it keeps a running state.",
        "bailing_hybrid": "not measured: transformers 5.17.0 does not know bailing_hybrid",
        "bamba": "it does not load: int | None",
    }
    head = {"transformers": "5.17.0", "device": "NVIDIA H200", "precision": "bfloat16", "why_not": why_not}
    (tmp_path / "captured.json").write_text(json.dumps(head), encoding="utf-8")
    cells = {
        line.split(" | ")[0]: line.split(" | ")[5]
        for line in write_docs.architectures().splitlines()[2:]
        if " | " in line
    }
    assert {kind: cells[f"| {kind}"] for kind in (*why_not, "olmo")} == {
        "llama": "yes",
        "mamba": "no: it keeps a running state",
        "bailing_hybrid": "not measured: transformers 5.17.0 does not know bailing_hybrid",
        "bamba": "no: it does not load: int \\| None",
        "olmo": "–",
    }
