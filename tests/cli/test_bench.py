"""Flags, files and comparisons."""

from __future__ import annotations

import csv
import io
import json
import time

import pytest

from edge_tui.bench import compare, report, session
from edge_tui.bench.job import BenchError
from edge_tui.bench.progress import Progress
from edge_tui.cli.main import main


@pytest.fixture(autouse=True)
def _known_bandwidth(monkeypatch):
    """Measuring the bandwidth takes seconds: tests/bench does it once."""
    monkeypatch.setattr(session, "read_bandwidth", lambda device: 1e10)


QUICK = (
    "speed",
    "--random",
    "tiny",
    "--strategies",
    "greedy",
    "--tokens",
    "8",
    "--rounds",
    "1",
    "--peers",
    "none",
)


def bench(*flags: str) -> int:
    return main(["bench", *flags, "-q", "--device", "cpu"])


def test_a_table_is_written_in_every_form(tmp_path, capsys):
    files = {kind: tmp_path / f"table.{kind}" for kind in ("json", "markdown", "csv")}
    flags = [part for kind, file in files.items() for part in (f"--{kind}", str(file))]
    order = [
        "table",
        "--random",
        "tiny",
        "--strategies",
        "greedy",
        "--chain",
        "top_k",
        "--batches",
        "1,2",
        "--tokens",
        "8",
        "--rounds",
        "1",
    ]
    assert bench(*order, *flags) == 0
    saved = json.loads(files["json"].read_text())
    assert [row["batch"] for row in saved["rows"]] == [1, 2]
    for key in ("versions", "device_name", "driver", "seed", "prompts_sha256", "read_bandwidth", "python"):
        assert key in saved
    head, first, second = csv.reader(files["csv"].read_text().splitlines())
    assert head == [
        "Model", "Params", "GPU", "Decoding Method",
        "Batch Size", "Tokens/sec", "Peak GPU RAM (GB)", "Time-to-First-Token (s)",
    ]  # fmt: skip
    assert (first[3], first[4], second[4]) == ("greedy:top_k", "1", "2")
    assert float(second[5]) > 0
    assert files["markdown"].read_text().startswith("| Model | Params |")
    assert "Tokens/sec" in capsys.readouterr().out


def test_quality_has_its_columns_and_says_whose_perplexity_it_is(tmp_path, capsys):
    files = {kind: tmp_path / f"quality.{kind}" for kind in ("json", "markdown", "csv")}
    flags = [part for kind, file in files.items() for part in (f"--{kind}", str(file))]
    order = [
        "quality",
        "--models",
        "demo/amateur",
        "--text-tokens",
        "48",
        "--questions",
        "1",
        "--answer",
        "3",
    ]
    assert bench(*order, *flags) == 0
    head, *rows = csv.reader(files["csv"].read_text().splitlines())
    assert head == [
        "Model", "Quantization", "Decoding", "Speed (tok/s)", "Perplexity", "F1", "Peak VRAM (GB)",
    ]  # fmt: skip
    # What processors compute fast stands in for FP16 there.
    assert [row[1:3] for row in rows] == [
        [quantisation, decoding]
        for quantisation in ("FP32", "INT8", "INT4")
        for decoding in ("greedy", "beam")
    ]
    assert len({row[4] for row in rows[:2]}) == 1
    remark = report.QUALITY_REMARK
    assert "repeat it" in remark
    assert remark in files["markdown"].read_text()
    assert remark in capsys.readouterr().out
    assert json.loads(files["json"].read_text())["remark"] == remark


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (("speed", "--strategies", "greedo"), "greedo"),
        (("speed", "--precisions", "int3"), "no precision 'int3'"),
        (("speed", "--peers", "vllm"), "no peer 'vllm'"),
        (("speed", "--context", "0"), "--context"),
        (("speed", "--json", "/nowhere/at/all.json"), "no folder"),
        (("speed", "--set", "temperature"), "NAME=VALUE"),
        (("table", "--set", "top_kk=5"), "none has 'top_kk'"),
        (("quality", "--strategies", "top_k", "--set", "top_k=-5"), "from 0 to 1000"),
        (("table", "--batches", "x"), "--batches"),
        (("quality", "--random", "tiny"), "--text FILE"),
        (("quality", "--stride", "0"), "--stride"),
        (("quality", "--text", "/nowhere.txt"), "cannot be read"),
    ],
)
def test_what_does_not_exist_is_refused_in_one_line(flags, sentence, capsys):
    assert bench(*flags) == 2
    error = capsys.readouterr().err
    assert sentence in error
    assert error.count("\n") == 1


def test_numbers_for_spreadsheets_have_no_commas():
    columns = [report.Column(name, lambda row, name=name: row[name]) for name in ("a", "b", "c")]
    text = report.csv_table(columns, [{"a": "1,234,567.8", "b": "–", "c": "greedy, batch 4"}])
    assert text == 'a,b,c\n1234567.8,,"greedy, batch 4"\n'


def test_a_model_that_is_not_there_is_said(capsys):
    assert bench("speed", "--models", "nobody/nothing") == 1
    assert "nobody/nothing" in capsys.readouterr().err


def test_time_that_is_up_is_said(capsys):
    assert bench("speed", "--random", "tiny", "--budget", "0.000001") == 1
    assert "the time was up" in capsys.readouterr().err


def saved(tmp_path, name, **rows):
    file = tmp_path / name
    results = report.Results("speed", file)
    for who, rate in rows.items():
        results.add({"model": "m", "who": who, "tokens_per_second": rate, "first": float("nan")})
    return file


def test_comparing_pairs_rows_and_names_the_rest(tmp_path, capsys):
    a = saved(tmp_path, "a.json", ours=100.0, gone=1.0)
    b = saved(tmp_path, "b.json", ours=150.0, new=1.0)
    assert main(["bench", "compare", str(a), str(b)]) == 0
    captured = capsys.readouterr()
    assert "1.500×" in captured.out
    assert "Only a.json has m · gone." in captured.err
    assert "Only b.json has m · new." in captured.err


def test_results_are_kept_without_a_flag_and_can_be_compared(home, capsys):
    assert bench(*QUICK) == 0
    (file,) = (home / "data" / "edge-tui" / "bench").glob("speed-*.json")
    assert f"Results are in {file}" in capsys.readouterr().err
    assert file.parent.stat().st_mode & 0o777 == 0o700
    assert main(["bench", "compare", str(file), str(file)]) == 0
    assert "1.000×" in capsys.readouterr().out
    assert bench("speed", "--models", "nobody/nothing") == 1
    assert list(file.parent.iterdir()) == [file], "nothing was measured, nor compared anew: nothing is kept"


def test_no_place_to_keep_results_is_said(home, monkeypatch, capsys):
    (home / "file").touch()
    monkeypatch.setenv("XDG_DATA_HOME", str(home / "file"))
    assert bench(*QUICK) == 0
    assert "name a file with --json" in capsys.readouterr().err


def test_comparing_what_is_no_bench_is_refused(tmp_path):
    file = tmp_path / "x.json"
    file.write_text("[]")
    with pytest.raises(BenchError, match="no results of a bench"):
        compare.compare(file, file)


def test_unknown_numbers_are_null_in_files_and_dashes_in_tables(tmp_path):
    file = saved(tmp_path, "a.json", ours=1.0)
    assert json.loads(file.read_text())["rows"][0]["first"] is None
    assert report.number(float("nan")) == "–"
    assert report.number(1234.5, 1, " %") == "1,234.5 %"
    assert report.parameters(494_032_768) == "494.0M"
    assert report.parameters(7_615_616_512) == "7.62B"


def test_progress_is_a_bar_on_a_terminal_and_lines_elsewhere(monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    now = iter(float(second) for second in range(0, 1000, 10))
    monkeypatch.setattr(time, "monotonic", lambda: next(now))
    for out in (Terminal(), io.StringIO()):
        progress = Progress(4, out=out)
        progress.step("first")
        progress.say("round 1/3")
        progress.step("second")
        progress.end()
        text = out.getvalue()
        assert "1/4 first" in text
        assert "first · round 1/3" in text
        assert "2/4 second · about" in text
        assert ("▕████            ▏" in text) == out.isatty()
        assert ("\r" in text) == out.isatty()


def test_a_single_step_has_a_bar_and_an_end_in_sight_too(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    out = io.StringIO()
    progress = Progress(1, out=out)
    progress.step("only")
    for detail, share, now[0] in (
        ("question 1/2", 0.0, 10),
        ("question 2/2", 0.5, 20),
        ("round 1/3", 0.0, 20),
    ):
        progress.say(detail, share)
    lines = out.getvalue().splitlines()
    assert lines[:2] == ["1/1 only", "1/1 only · question 1/2"]
    assert lines[2:] == [f"1/1 only · {what} · about 20 s left" for what in ("question 2/2", "round 1/3")]
