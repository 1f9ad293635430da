from __future__ import annotations

from dataclasses import replace
from math import inf, log, nan

import pytest
from rich.cells import cell_len

from edge_tui.engine.explanation import Candidate, Explanation, StageView
from edge_tui.transcript.ladder import LadderLine, LadderOptions, ladder_lines
from edge_tui.transcript.why_text import candidate_sentence, criterion_text, share, signed
from tests.transcript.explanations import of_greedy, of_top_p

WIDTHS = (30, 36, 46, 63, 64, 88, 158)


def texts(lines: list[LadderLine]) -> list[str]:
    return [line.text.rstrip() for line in lines]


def of_chain(stages: int) -> Explanation:
    """A chain of stages of long names, the first of which cut the last token."""
    names = tuple(
        StageView(f"stage{i}", f"stage {i} at 0.12345", 2, int(not i), 0.1 * (not i)) for i in range(stages)
    )
    candidates = tuple(
        Candidate(
            i,
            text,
            log(0.5 - 0.1 * i),
            i,
            tuple(-inf if i == 2 else log(0.5) for _ in range(stages)),
            (nan,) * stages,
            0 if i == 2 else -1,
            1.0 - i,
            1.0 - i + log(0.5) if i < 2 else -inf,
        )
        for i, text in enumerate(
            ("日本語のことば", "\x1b[31mred", "a long token that no column has room for")
        )
    )
    return replace(of_top_p(), stages=names, candidates=candidates, candidate_count=2)


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("why", [of_top_p(), of_greedy(), of_chain(1), of_chain(9)])
def test_every_line_has_the_width_and_no_control_character(why: Explanation, width: int) -> None:
    lines = ladder_lines(why, width)
    assert {cell_len(line.text) for line in lines} == {width}
    assert "\x1b" not in "".join(line.text for line in lines)


@pytest.mark.parametrize("width", WIDTHS)
def test_numbers_end_below_the_end_of_their_headings(width: int) -> None:
    lines = ladder_lines(of_top_p(), width, LadderOptions(kept=9, cut=9))
    at = next(i for i, line in enumerate(lines) if any(role == "head" for _, role in line.parts))
    heads = lines[at].text
    taken = lines[at + 1].text
    for head, number in (("raw", "1.5"), ("luck", "+6.3"), ("sum", "+2.2")):
        end = heads.index(head) + len(head)
        written = taken[:end].split()
        unit = written.pop() if written[-1] == "%" else ""
        assert written[-1][:4].startswith(number[:3]), (head, unit, taken)
        assert taken[end : end + 1] in ("", " ")


def test_it_is_drawn_for_eighty_columns() -> None:
    assert texts(ladder_lines(of_top_p(), 30)) == [
        "9 tokens were left; “b” had",
        "the luck: one run in 60 takes",
        "it here.",
        "           raw    p luck   sum",
        "● “b”      1.5  1.7 +6.3  +2.2",
        "  “hire”  18.3 20.2 +2.8  +1.2",
        "  “burg”  19.4 21.4 +1.5   0.0",
        "  “wood”  37.5 41.4 +0.4  −0.5",
        "  ⋮ 5 more",
        "╌ top-p 0.9 stops, Σ 90.6 % ╌╌",
        "  “worth”  1.0  cut",
        "  “bur”    1.0  cut",
        "  ⋮ 49,141 more cut",
        "rank 8 · margin 0.98 · H 2.12",
        "Others: greedy, auto “wood”",
        "top-k 5 “hire”",
    ]


def test_it_is_drawn_for_a_hundred_and_sixty_columns() -> None:
    assert texts(ladder_lines(of_top_p(), 88))[:9] == [
        "9 tokens were left; “b” had the luck: one run in 60 takes it here.",
        "                      raw  top-p 0.9    log p    luck      sum",
        "● “b”               1.5 %      1.7 %    −4.10   +6.27    +2.17  1st",
        "  “hire”           18.3 %     20.2 %    −1.60   +2.76    +1.16  2nd",
        "  “burg”           19.4 %     21.4 %    −1.54   +1.50    −0.04  3rd",
        "  “wood”           37.5 %     41.4 %    −0.88   +0.41    −0.47",
        "  ⋮ 5 more",
        "╌╌ top-p 0.9 stops here: Σ 90.6 %, 49,143 cut (9.4 %) " + "╌" * 34,
        "  “worth”           1.0 %        cut",
    ]


def test_the_order_is_that_of_sums_or_of_probabilities() -> None:
    def listed(order: str) -> list[int]:
        lines = ladder_lines(of_top_p(), 88, LadderOptions(order=order, kept=3))  # type: ignore[arg-type]
        return [line.id for line in lines if line.id >= 0][:4]

    assert listed("sum")[:3] == [0, 1, 2]
    assert listed("p") == [3, 2, 1, 0], "the token itself is listed, wherever it stands"


def test_a_watched_token_and_the_line_that_unfolds_are_there() -> None:
    why = of_top_p()
    lines = ladder_lines(why, 30, LadderOptions(kept=2, cut=0, watched={5, 7}))
    assert [line.id for line in lines if line.id >= 0] == [0, 1, 5, 7]
    (more,) = (line for line in lines if line.text.strip() == "⋮ 6 more")
    assert more.unfolds
    unfolded = ladder_lines(why, 30, LadderOptions(kept=99, cut=99))
    (rest,) = (line for line in unfolded if line.text.strip() == "⋮ 3 more")
    assert not rest.unfolds, "the engine told of no more of them"


def test_stages_without_room_are_an_ellipsis_that_says_cut() -> None:
    lines = ladder_lines(of_chain(9), 88)
    head = next(line.text for line in lines if "log p" in line.text)
    assert "…" in head
    assert "stage 8 at 0.12…" in head
    removed = next(line.text for line in lines if line.id == 2)
    assert removed.split()[-1] == "cut"
    assert "…" in removed
    assert any(line.text.startswith("╌╌ stage 0 at 0.12345 cut 1 ") for line in lines)


def test_a_choice_without_luck_has_no_column_for_it() -> None:
    for width in (30, 88):
        shown = "\n".join(texts(ladder_lines(of_greedy(), width)))
        assert "luck" not in shown
        assert "margin" not in shown
        assert "n/a" not in shown
    record = replace(of_top_p().candidates[0], luck=nan, sum=nan)
    unknown = replace(of_top_p(), candidates=(record,), exactness="record")
    assert "luck " not in "\n".join(texts(ladder_lines(unknown, 30))[2:])


def test_a_strategys_own_numbers_come_before_probabilities() -> None:
    own = {"expert": {0: -1.39, 1: -2.5}, "amateur": {0: -0.2, 1: -12.34}, "score": {0: -1.19, 1: -inf}}
    lines = ladder_lines(of_greedy(), 30, LadderOptions(own=own))
    assert texts(lines)[2:4] == [
        "          expert amateur score",
        "● “ sky”   −1.39   −0.20 −1.19",
    ]
    assert "amateur" in "\n".join(texts(ladder_lines(of_greedy(), 88, LadderOptions(own=own))))


def test_sentences_say_what_became_of_a_token() -> None:
    why = of_top_p()
    assert candidate_sentence(why, 0) == "“b” has the largest sum, by 0.98."
    assert candidate_sentence(why, 1) == "“hire” lacked 1.01 to the sum of “b”."
    assert candidate_sentence(why, 6) == "top-p 0.9 cut it: Σ 96.6 %, the edge is Σ 90.6 %."
    assert candidate_sentence(why, 99) == ""
    assert candidate_sentence(of_greedy(), 0) == "“ sky” is the best."


def of_numbers() -> Explanation:
    """Guidance adds 2, 1, 0 … nats before top-p, and a temperature follows it."""
    why = of_top_p()
    guided, cooled = StageView("cfg", "CFG", 49_152, criterion="Δ log p"), StageView("temperature", "T", 9)
    return replace(
        why,
        stages=(guided, *why.stages, replace(cooled, criterion="T")),
        candidates=tuple(
            replace(
                each,
                logps=(each.raw_logp, *each.logps, *each.logps),
                criteria=(2.0 - i, *each.criteria, 0.8),
                removing_stage=each.removing_stage + (each.removing_stage >= 0),
            )
            for i, each in enumerate(why.candidates)
        ),
    )


def test_a_number_without_a_cut_stands_before_what_the_stage_left() -> None:
    """One that all tokens share stands below; where columns lack the room, the probabilities stay."""
    lines = texts(ladder_lines(of_numbers(), 88))
    assert lines[1].split() == [
        *("raw", "Δ", "log", "p", "CFG", "top-p", "0.9", "T"),
        *("log", "p", "luck", "sum"),
    ]
    assert "+2.00" in lines[2]
    assert "0.00" in next(line for line in lines if "burg" in line)
    assert any(line.startswith("rank 8 · margin 0.98 · H 2.12 · T 0.8") for line in lines)
    narrow = texts(ladder_lines(of_numbers(), 80))
    assert "CFG" in narrow[1]
    assert "Δ" not in narrow[1]


def test_titles_give_way_to_the_number_of_a_stage() -> None:
    why = of_numbers()
    long = replace(why.stages[0], title="guidance scale 1.5")
    head = texts(ladder_lines(replace(why, stages=(long, *why.stages[1:])), 90))[1]
    assert head.split()[:5] == ["raw", "Δ", "log", "p", "guidance…"]


def test_the_sentence_of_a_token_has_the_numbers_that_no_stage_cuts_by() -> None:
    why = of_numbers()
    assert candidate_sentence(why, 0) == "“b” has the largest sum, by 0.98. Δ log p +2.00 by CFG."
    assert candidate_sentence(why, 1) == "“hire” lacked 1.01 to the sum of “b”. Δ log p +1.00 by CFG."
    assert candidate_sentence(why, 2).endswith("to the sum of “b”.")


@pytest.mark.parametrize(
    ("criterion", "value", "written"),
    [
        ("Σp", 0.906, "Σ 90.6 %"),
        ("p", 0.0004, "p 0.04 %"),
        ("p/p₁", 0.05, "p/p₁ 0.05"),
        ("rank", 50.0, "rank 50"),
        ("|s − H|", 1.2345, "|s − H| 1.23"),
        ("T", 0.8, "T 0.8"),
        ("Δz", -1.4, "Δz −1.40"),
        ("Δ log p", 0.316, "Δ log p +0.32"),
        ("Δz", 0.0, "Δz 0.00"),
        ("Σp", nan, ""),
        ("", 1.0, ""),
    ],
)
def test_criteria_have_their_units(criterion: str, value: float, written: str) -> None:
    assert criterion_text(criterion, value) == written


@pytest.mark.parametrize(
    "fraction", [0.0, 1e-9, 1e-5, 9.4e-5, 1e-4, 0.00094, 0.000951, 0.01, 0.1, 0.9994, 0.9996, 1.0]
)
def test_shares_fit_their_cells(fraction: float) -> None:
    assert len(share(fraction, 4)) <= 4
    assert len(share(fraction)) <= 7
    assert share(fraction).endswith("%")


def test_signed_numbers_fit_their_cells() -> None:
    assert [signed(value, 1, 4, "+") for value in (6.27, -0.04, 123.4, -12.34, nan)] == [
        "+6.3",
        "0.0",
        "+123",
        "−12",
        "n/a",
    ]


def test_facts_below_0_have_the_minus_of_the_columns_and_texts_their_own() -> None:
    facts = (("expert", "-4.41"), ("score", "11.8"), ("rejected", "“-1”"), ("parent", "row 2"))
    drawn = " ".join(texts(ladder_lines(replace(of_top_p(), facts=facts), 100)))
    assert "expert −4.41 · score 11.8 · rejected “-1” · parent row 2" in drawn
