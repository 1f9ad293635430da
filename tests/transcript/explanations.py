"""Explanations made by hand: the numbers of a real run, as the ladder is drawn of them."""

from __future__ import annotations

from math import exp, inf, log, nan

from edge_tui.engine.explanation import Candidate, Explanation, OtherChoice, StageView

SHARES = {  # raw percent, luck
    "b": (1.5, 6.27),
    "hire": (18.3, 2.76),
    "burg": (19.4, 1.50),
    "wood": (37.5, 0.41),
    "ville": (5.1, 0.1),
    "field": (4.0, -0.2),
    "worth": (1.0, 2.0),
    "bur": (1.0, 0.3),
}
KEPT = 0.906


def of_top_p() -> Explanation:
    """One draw under top-p 0.9: nine tokens are left, “b” has the luck."""
    candidates = []
    for i, (text, (percent, luck)) in enumerate(SHARES.items()):
        raw = log(percent / 100)
        cut = text in ("worth", "bur")
        final = -inf if cut else raw - log(KEPT)
        candidates.append(
            Candidate(
                i,
                text,
                raw,
                7 if not i else i - 1,
                (final,),
                (0.906 + i / 100,),
                0 if cut else -1,
                luck,
                final + luck,
            )
        )
    return Explanation(
        token=0,
        winner=0,
        margin=0.98,
        candidate_count=9,
        chance=exp(candidates[0].logps[-1]),
        entropy=2.12,
        drawn=True,
        stages=(StageView("top_p", "top-p 0.9", 9, 49_143, 0.094, "Σp", KEPT),),
        candidates=tuple(candidates),
        sentence="9 tokens were left; “b” had the luck: one run in 60 takes it here.",
        others=(
            OtherChoice("greedy", "greedy", 3, "wood"),
            OtherChoice("top_k", "top-k 5", 1, "hire"),
            OtherChoice("auto", "auto", 3, "wood"),
        ),
    )


def of_greedy() -> Explanation:
    """The best of two, without luck."""
    candidates = tuple(
        Candidate(i, text, log(p), i, (0.0 if not i else -inf,), (float(i),), -1 if not i else 0, nan, nan)
        for i, (text, p) in enumerate(((" sky", 0.7), (" sea", 0.2)))
    )
    return Explanation(
        token=0,
        winner=0,
        margin=inf,
        candidate_count=1,
        chance=1.0,
        entropy=0.9,
        drawn=False,
        stages=(StageView("greedy", "greedy", 1, 49_151, 0.3, "rank", 1.0),),
        candidates=candidates,
        sentence="“ sky” is the likeliest; greedy takes it.",
    )
