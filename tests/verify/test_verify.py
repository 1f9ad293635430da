"""Every shipped strategy agrees with its references, and a wrong one does not."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from edge_tui import decoders
from edge_tui.cli.main import main
from edge_tui.decoders.base import Decoder
from edge_tui.verify.finding import Finding
from edge_tui.verify.verify import find, verify

SHIPPED = find([])
FEW = 16

WRONG = """
import torch
from edge_tui.decoders.base import Filter, Param
class Wrong(Filter):
    name = "wrong"
    title = "wrong"
    summary = "Keeps what it should not."
    params = (Param("wrong", 0.5, 0.0, 1.0, "Nothing.", neutral=0.0),)
    def apply(self, z, p, s, rng):
        {body}
"""


def failures(findings: list[Finding]) -> list[str]:
    return [f"{each.strategy} {each.reference}: {fault}" for each in findings for fault in each.faults]


@pytest.mark.parametrize("decoder", SHIPPED, ids=lambda decoder: decoder.name)
def test_a_few_cases_of_each_strategy_agree_with_its_references(decoder: Decoder) -> None:
    findings = list(verify([decoder], FEW))
    assert failures(findings) == []
    assert all(each.cases for each in findings)
    assert len(findings) > 1, "it has no reference"


@pytest.mark.proof
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("decoder", SHIPPED, ids=lambda decoder: decoder.name)
def test_thousands_of_cases_of_each_strategy_agree_with_its_references(decoder: Decoder) -> None:
    findings = list(verify([decoder], 4000))
    assert failures(findings) == []


def test_a_chain_is_compared_with_the_references_of_its_stages() -> None:
    findings = list(verify(find(["temperature+min_p", "top_k+penalties+top_k#2"]), FEW))
    assert failures(findings) == []
    assert {each.reference for each in findings} >= {"own loop in float64", "transformers, stage by stage"}


def user_strategy(folder: Path, body: str) -> Decoder:
    (folder / "wrong.py").write_text(WRONG.format(body=body), encoding="utf-8")
    registry = decoders.Registry.load([folder])
    assert registry.problems == []
    return registry.find("wrong")


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("return z * float('nan')", "wrong.py, line 9: Wrong.apply gave NaN"),
        ("self.last = z; return z", "outlives the run"),
        ("return z + torch.rand(z.shape)", "two results"),
        ("return z.roll(1, 0)", "rows beside it"),
        ("return z[:, :1]", "returned float32"),
        ("raise KeyError('x')", "KeyError: 'x'"),
    ],
)
def test_properties_find_what_a_users_file_does_wrong(tmp_path: Path, body: str, reason: str) -> None:
    (finding,) = verify([user_strategy(tmp_path, body)], 30)
    assert finding.failed
    assert any(reason in fault for fault in finding.faults), finding.faults


def test_a_sound_file_of_a_user_passes(tmp_path: Path) -> None:
    (finding,) = verify([user_strategy(tmp_path, "return z - p['wrong']")], 30)
    assert (finding.reference, finding.faults) == ("properties", [])


BARE = """
from edge_tui.decoders.base import Decoder, Needs, last_logits
class Bare(Decoder):
    name, title, summary = "bare", "bare", "Has no parameters."
    needs = Needs({needs})
    def logits(self, outs, s, p):
        return last_logits(outs["model"], s) + {more}
"""


@pytest.mark.parametrize(
    ("needs", "more"),
    [
        ("", "0"),
        ("hidden=(-1,)", "outs['model'].hidden[:, -1, 0].mean(-1, keepdim=True)"),
        ("early=(1, 2)", "outs['model'].early[:, -1, 1].softmax(-1)"),
        ("past=True", "outs['model'].past.mean((1, 2))[:, None]"),
    ],
)
def test_a_sound_decoder_without_parameters_passes(tmp_path: Path, needs: str, more: str) -> None:
    (tmp_path / "bare.py").write_text(BARE.format(needs=needs, more=more))
    (finding,) = verify([decoders.Registry.load([tmp_path]).find("bare")], 30)
    assert finding.faults == []


def test_the_command_reports_and_fails_for_a_wrong_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    user_strategy(tmp_path, "return z * float('nan')")
    file = tmp_path / "found.json"
    flags = ["--cases", "20", "--decoders", str(tmp_path), "--json", str(file)]
    try:
        assert main(["verify", "min-p", "wrong", *flags]) == 1
    finally:
        decoders.load()
    printed = capsys.readouterr()
    assert "min_p  own loop in float64" in printed.out
    assert "differ: wrong." in printed.err
    saved = json.loads(file.read_text(encoding="utf-8"))
    assert saved["versions"]["torch"]
    found = {each["strategy"]: Finding(**each).failed for each in saved["findings"]}
    assert found == {"min_p": False, "wrong": True}


def test_a_file_that_cannot_be_read_is_named_and_fails(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "broken.py").write_text("import nothing_of_that_name", encoding="utf-8")
    monkeypatch.setattr("edge_tui.verify.verify.verify", lambda subjects, cases: iter(()))
    try:
        assert main(["verify", "--decoders", str(tmp_path)]) == 1
    finally:
        decoders.load()
    assert "broken.py" in capsys.readouterr().err


def test_a_strategy_with_a_chain_around_it_has_its_properties_checked() -> None:
    (finding,) = verify(find(["contrastive:min_p"]), 10)
    assert (finding.reference, finding.faults) == ("properties", [])


def test_a_shipped_strategy_without_a_reference_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edge_tui.verify.verify.REFERENCES", {})
    missing, _ = verify(find(["greedy"]), 1)
    assert missing.failed
    assert missing.reference == "no reference"


def test_quiet_prints_nothing_where_all_agree(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", "greedy", "--cases", "1", "-q"]) == 0
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("flags", "word"),
    [(["nonsense"], "nonsense"), (["--cases", "0"], "--cases"), (["--json", "/no/folder/x"], "/no/folder")],
)
def test_wrong_arguments_are_refused_in_one_sentence(
    flags: list[str], word: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["verify", *flags]) == 2
    printed = capsys.readouterr()
    assert word in printed.err
    assert printed.err.count("\n") == 1
