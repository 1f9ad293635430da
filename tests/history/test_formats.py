"""Runs as files: nothing lost where that is promised, nothing obeyed wherever they are opened."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ElementTree
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge_tui.engine.events import Finished, ParamChanged, Ranked
from edge_tui.engine.port import Message, Request
from edge_tui.engine.token_fields import KEPT, OWN, UNKNOWN
from edge_tui.history.formats import FORMATS, file_name, lossless, render
from edge_tui.history.formats.facts import facts
from edge_tui.history.formats.palette import palette
from edge_tui.history.formats.token_panels import WIDTH, stage_titles
from edge_tui.history.restore import transcript_of
from edge_tui.history.runs import StoredRun
from edge_tui.history.schema import HistoryError
from edge_tui.history.store import Store
from edge_tui.transcript.ladder import LadderOptions, ladder_lines
from tests.history.runs import WORDS, batch, keep, same
from tests.transcript.explanations import of_top_p

HOSTILE = [
    "\x1b]52;c;aGk=\x07 ",
    "</pre><script>x</script>",
    "```\n# no",
    "\u202etxt\x00",
    "\ud83d",
    "<b>&amp;",
]


@pytest.fixture
def stored(tmp_path: Path) -> StoredRun:
    store = Store(tmp_path / "history.db")
    entry = keep(store, columns=("score", "gap"))
    run = store.load(entry.id)
    strange = batch(HOSTILE, columns=2)
    strange.raw_logp[:3] = [np.nan, -np.inf, -1e-30]
    strange.rank[0] = -1
    finished = Finished(entry.id, "done", 6, 0.1, 0.2, (1, 2), "ab", -np.inf, None, "é", ("eos",), ("",))
    kept = batch(WORDS[:3], columns=2)
    turns = (Message("user", "a"), Message("assistant", "b"), Message("user", HOSTILE[1]))
    return replace(
        run,
        entry=replace(run.entry, reason="done", seconds=0.2, prompt=HOSTILE[1]),
        request=Request(
            turns,
            strategy="top_p",
            prefix=tuple(kept.id.tolist()),
            prefix_logps=((-0.5, -np.inf), (-0.25, -0.125), (-1.0, 0.0)),
            prefix_values=((0, {"top_p": 0.5}), (2, {"top_p": 0.25, "order": "llama.cpp"})),
        ),
        prefix=kept,
        batches=(batch(WORDS, 3, columns=2), strange),
        changes=(ParamChanged(0, "top_p", 0.1, 2, 4),),
        finished=replace(finished, ranked=(Ranked((1, 2), "ab", -0.25),)),
    )


def text(kind: str, stored: StoredRun) -> str:
    return render(kind, stored, transcript_of(stored), {1: " x"}).decode()


def test_json_loses_nothing(stored: StoredRun, tmp_path: Path) -> None:
    back = lossless.load(render("json", stored, transcript_of(stored), {}))
    assert stored.prefix is not None
    assert back.prefix is not None
    assert same(back.prefix, stored.prefix)
    (tokens,) = back.batches
    wanted = [i for each in stored.batches for i in each.id.tolist()]
    assert tokens.id.tolist() == wanted
    assert np.array_equal(tokens.raw_logp[-6:], stored.batches[1].raw_logp, equal_nan=True)
    assert tokens.top_logp[:11].tobytes() == stored.batches[0].top_logp.tobytes()
    assert tokens.final_ids.tobytes()[: 11 * 80] == stored.batches[0].final_ids.tobytes()
    for name in ("request", "started", "finished", "changes", "models", "versions", "message"):
        assert getattr(back, name) == getattr(stored, name), name
    store = Store(tmp_path / "other.db")
    entry = store.import_run(back, transcript_of(back).text)
    assert replace(entry, id=0, answer="", tokens=0) == replace(stored.entry, id=0, answer="", tokens=0)
    again = store.load(entry.id)
    assert lossless.dump(replace(again, entry=stored.entry), transcript_of(again), {}) == lossless.dump(
        replace(back, entry=stored.entry), transcript_of(back), {}
    )
    with pytest.raises(HistoryError, match="already"):
        store.import_run(back, "")


def test_json_keeps_what_was_told_of_alternatives(stored: StoredRun) -> None:
    told = batch(WORDS, 3, columns=2, told=True)
    assert told.candidates is not None
    told.candidates[0, 1, 0, :3] = [np.nan, -np.inf, -1e-30]
    run = replace(stored, prefix=None, batches=(told,))
    (back,) = lossless.load(render("json", run, transcript_of(run), {})).batches
    assert same(back, told)


def test_json_says_what_alternatives_were_where_the_model_is_not(stored: StoredRun, tmp_path: Path) -> None:
    ids = {each for each in stored.batches[0].top_ids.ravel().tolist() if each >= 0}
    texts = {each: f"<{each}\ud83d>" for each in ids}
    unused = max(ids) + 10**6
    back = lossless.load(render("json", stored, transcript_of(stored), texts | {unused: "x"}))
    assert back.token_strings == texts
    store = Store(tmp_path / "other.db")
    known = min(ids)
    store.add_token_strings(stored.model, {known: "own"})
    store.import_run(back, "")
    # No file rewrites what is known of a model.
    assert store.token_strings(stored.model) == {each: f"<{each}?>" for each in ids} | {known: "own"}


def test_json_of_an_earlier_version_says_nothing_of_margins(stored: StoredRun) -> None:
    data = json.loads(text("json", stored))
    for token in data["tokens"]:
        for name in ("margin", "candidate_count", "removing_stage"):
            del token[name]
    (found,) = lossless.load(json.dumps(data).encode()).batches
    assert np.isnan(found.margin).all()
    assert (found.candidate_count == -1).all()
    assert (found.removing_stage == UNKNOWN).all()


def test_json_of_an_earlier_version_has_no_texts_of_ids(stored: StoredRun) -> None:
    data = json.loads(text("json", stored))
    del data["pieces"]
    assert lossless.load(json.dumps(data).encode()).token_strings == {}


def test_json_is_strict_and_readable_by_others(stored: StoredRun) -> None:
    def refuse(word: str) -> None:
        raise AssertionError(word)

    data = json.loads(text("json", stored), parse_constant=refuse)
    assert data["text"].startswith("the sky is the sky")
    assert len(data["tokens"]) == len(WORDS) + len(HOSTILE)
    assert data["tokens"][0]["top_ids" if "top_ids" in data["tokens"][0] else "top"]


@pytest.mark.parametrize(
    "data",
    [
        b"", b"[]", b"42", b"null", b"{}", b"\xff", b"[" * 100_000,
        b'{"format": "edge-tui run", "version": 1}', b'{"format": "edge-tui run", "version": 2}',
    ],
)  # fmt: skip
def test_something_else_is_refused_in_a_sentence(data: bytes) -> None:
    with pytest.raises(HistoryError, match=r"^It is .*\.$"):
        lossless.load(data)


@pytest.mark.parametrize(
    ("part", "key", "value"),
    [
        ("run", "uid", "../../x"), ("run", "uid", "a" * 99), ("run", "state", "odd"), ("run", "created", "x"),
        ("run", "created", {"float": "inf"}), ("request", "prompt", 3), ("tokens", 0, {}), ("tokens", 0, 7),
        ("models", "model", 1), ("started", "values", []), ("changes", 0, {"index": 1}),
        ("pieces", "x", "a"), ("pieces", "-1", "a"), ("pieces", str(2**63), "a"),
    ],
)  # fmt: skip
def test_spoiled_files_are_refused(stored: StoredRun, part: str, key: Any, value: Any) -> None:
    data = json.loads(text("json", stored))
    data[part][key] = value
    with pytest.raises(HistoryError):
        transcript_of(lossless.load(json.dumps(data).encode()))


def test_svg_is_well_formed_and_has_every_word_in_its_colour(stored: StoredRun) -> None:
    written = text("svg", stored)
    root = ElementTree.fromstring(written)
    said = "".join(root.itertext())
    assert "molecules" in said
    assert "\x1b" not in written
    assert "\u202e" not in written
    assert "<script" not in written
    fills = {span.get("fill") for span in root.iter("{http://www.w3.org/2000/svg}tspan")}
    assert len(fills & set(palette("dark").ladder)) > 3


class _Page(HTMLParser):
    """Reads tags, attributes and text; the lines about a token by the number of its button."""

    def __init__(self, written: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: set[str] = set()
        self.text = ""
        self.panels: dict[str, str] = {}
        self.shown = ""
        self._button = ""
        self._place = ""
        self.feed(written)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}
        named = {name: value or "" for name, value in attrs}
        if tag == "input":
            assert named["type"] == "radio"
            self._button = named["id"]
        elif tag == "span" and named["class"] == "w":
            self._place = "panel"
            self.panels[self._button] = ""
        elif tag == "label" and named["for"] == self._button:
            self._place = "token"

    def handle_endtag(self, tag: str) -> None:
        if (tag, self._place) in (("span", "panel"), ("label", "token")):
            self._place = ""

    def handle_data(self, data: str) -> None:
        self.text += data
        if self._place == "panel":
            self.panels[self._button] += data
        elif self._place == "token":
            self.shown += data


_TAGS = {
    "html", "head", "meta", "title", "style", "body", "h1", "h2", "pre", "table", "tr", "th", "td", "input",
    "label", "span", "i",
}  # fmt: skip
_ATTRIBUTES = {"lang", "charset", "name", "content", "http-equiv", "type", "id", "for", "class", "checked"}


def test_html_shows_the_record_of_each_token_and_runs_nothing(stored: StoredRun) -> None:
    ids = stored.batches[0].top_ids[0].tolist()
    taken = stored.batches[0].id[0].item()
    columns = stored.batches[0]
    titles = stage_titles(transcript_of(stored), 3)
    top_p = max(number for number, title in titles.items() if title == "top-p 0.9")
    columns.removing_stage[0] = [KEPT, top_p, OWN, UNKNOWN, *[KEPT] * 16]
    columns.candidate_count[:2], columns.margin[:2] = [1_234, 1], [0.5, np.inf]
    transcript = transcript_of(stored)
    written = render("html", stored, transcript, {ids[0]: " one", ids[7]: " eight"}).decode()
    page = _Page(written)
    assert page.tags <= _TAGS
    assert page.attributes <= _ATTRIBUTES
    assert "default-src 'none'" in written
    assert "http" not in written.replace("http-equiv", "")
    assert page.shown.startswith("the sky is the sky is blue because")
    assert "</pre><script>x</script>" in page.shown
    first = page.panels["t3"].splitlines()
    token = transcript.token(3)
    assert first[0].endswith("“the ” #3")
    assert first[1] == (
        f"raw {100 * np.exp(token.raw_logp):.1f} % ({token.raw_logp:.2f}) · rank {token.rank + 1} · "
        f"final {100 * np.exp(token.final_logp):.1f} % ({token.final_logp:.2f}) · "
        f"entropy {token.entropy:.2f} nats"
    ).replace("-", "−")
    assert token.id == taken
    rows = [line.split() for line in first if line.startswith(("  “", "  id", "● "))]
    assert len(rows) == 26
    likeliest = f"{100 * np.exp(token.top[0].logp):.1f}"
    assert rows[0] == ["“", "one”", likeliest, "%"]
    assert [" ".join(row[4:]) for row in rows[1:4]] == ["cut by top-p 0.9", "cut by top-p", "cut"]
    assert rows[-1][:2] == ["●", "id"]
    assert first[2] == "1,234 kept · margin 0.500 nats"
    assert page.panels["t4"].splitlines()[2] == "1 kept · nothing else was left"
    unknown = page.panels[f"t{3 + len(WORDS)}"]
    assert "raw n/a (n/a) · rank n/a · final" in unknown
    assert "nan" not in "".join(page.panels.values())
    assert "\x1b" not in written
    assert "top_p 0.1 from here on" in page.panels["t7"]


def test_html_without_a_record_says_so(stored: StoredRun) -> None:
    bare = replace(stored, prefix=None, batches=(), request=replace(stored.request, prefix=(5,)))
    assert bare.started is not None
    bare = replace(bare, started=replace(bare.started, kept_texts=("a",)))
    page = _Page(text("html", bare))
    assert "raw n/a (n/a) · rank n/a · final n/a (n/a) · entropy n/a" in page.panels["t0"]
    assert "Nothing is recorded" in page.panels["t0"]


BREAKERS = (
    '"><img src=x onerror=y>', "' onclick='y", "</style></title>", "<!--", "&lt;script&gt;", "\x1b]8;;x\x07",
)  # fmt: skip


def test_nothing_of_others_becomes_markup(stored: StoredRun) -> None:
    said = "".join(BREAKERS)
    assert stored.started is not None
    run = replace(
        stored,
        entry=replace(stored.entry, model=said, strategy=said),
        prefix=None,
        request=Request((Message("user", said),), system=said, template={said: said}),
        started=replace(stored.started, columns=(said, "gap"), control_tokens=(said,), version=said),
        batches=(batch(BREAKERS, columns=2, told=True),),
        changes=(ParamChanged(0, said, 0.1, 2, 1),),
        versions={said: said},
        message=said,
    )
    strings = {each: BREAKERS[each % len(BREAKERS)] for each in run.batches[0].top_ids.ravel().tolist()}
    plain = of_top_p()
    why = replace(
        plain,
        stages=tuple(replace(stage, title=said, criterion=said) for stage in plain.stages),
        candidates=tuple(replace(each, text=BREAKERS[0]) for each in plain.candidates),
        others=tuple(replace(each, title=said, text=said) for each in plain.others),
        sentence=said,
        facts=((said, said),),
        note=said,
    )
    written = render("html", run, transcript_of(run), strings, explanations={2: why}).decode()
    page = _Page(written)
    assert page.tags == _TAGS
    assert page.attributes == _ATTRIBUTES
    assert page.shown.replace("␛]8;;x␇", "") == "".join(BREAKERS[:-1]) + "é"
    assert "onerror=y" in page.panels["t1"]
    assert "onerror=y" in page.panels["t2"]
    assert "\x1b" not in written


def test_an_explained_token_has_its_ladder(stored: StoredRun) -> None:
    why = of_top_p()
    page = _Page(render("html", stored, transcript_of(stored), {}, explanations={4: why}).decode())
    for line in ladder_lines(why, WIDTH, LadderOptions(kept=20, cut=20)):
        assert line.text.rstrip() in page.panels["t4"]
    assert why.sentence in page.panels["t4"]
    assert why.sentence not in page.panels["t3"]


def test_a_thousand_tokens_are_less_than_two_megabytes(stored: StoredRun) -> None:
    run = replace(stored, prefix=None, batches=(batch(WORDS * 10, columns=2),))
    strings = dict.fromkeys(range(32000), " of words")
    tokens = len(WORDS) * 10
    assert len(render("html", run, transcript_of(run), strings)) < 2_000 * tokens


def test_markdown_fences_cannot_be_closed_from_within(stored: StoredRun) -> None:
    written = text("md", stored)
    assert "````text" in written
    assert "\x1b" not in written
    assert "## System prompt" not in written
    assert written.count("## Answer") == 2


def test_names_sort_by_time(stored: StoredRun) -> None:
    assert all(file_name(stored, kind).endswith(f"{stored.entry.uid[:6]}.{kind}") for kind in FORMATS)


def test_each_sample_has_a_seed_that_the_facts_tell(stored: StoredRun) -> None:
    assert ("seed", "7") in facts(stored)
    samples = replace(stored, request=replace(stored.request, samples=3))
    assert ("seed", "7 to 9") in facts(samples)
