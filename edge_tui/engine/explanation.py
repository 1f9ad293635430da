"""Defines the answer to why a token was taken.

Every draw is `argmax(z + luck)`: `z` are the logits that the chain left, and luck is Gumbel noise that is a
function of key, step and token id (`edge_tui.decoders.core.random`). So the answer is a sum that a reader can
check. Plain data; importing it loads neither torch nor numpy.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import inf, nan
from typing import Literal

Exactness = Literal["own", "near", "record"]
"""Codes of how far an explanation's numbers are those of the draw.

"own": they are the draw's own; where a float32 model has read the text anew, up to its rounding. "near":
they were computed again in another way. In both, `Explanation.epsilon` bounds the error of each sum.
"record": nothing was computed; they are what was recorded with the token.
"""


@dataclass(frozen=True, slots=True)
class StageView:
    """Describes what one stage of the chain did at a step.

    Attributes:
        name: Of the link, as a chain is typed: `top_p`, `xtc#2`; that of the strategy for its own part.
        title: For readers, with its values: "top-p 0.9".
        kept: Number of tokens that it left.
        removed: Number of tokens that it took away.
        mass: Probability of those in the distribution that it was given.
        criterion: Names its number of each token: that by which it decided ("Σp", "p/p₁", "rank", "T"), or
            what it added ("Δz", "Δ log p"); "" for none.
        edge: The number at which it stopped; NaN where it cuts by none.
        neutral: True where its parameters let it do nothing.
    """

    name: str
    title: str
    kept: int
    removed: int = 0
    mass: float = 0.0
    criterion: str = ""
    edge: float = nan
    neutral: bool = False


@dataclass(frozen=True, slots=True)
class Candidate:
    """Follows one token through the stages.

    Attributes:
        id: The token.
        text: Its text.
        raw_logp: Log-probability under the model itself (nats).
        rank: 0 = the model's likeliest.
        logps: Log-probability after each stage; −inf from the stage on that removed it.
        criteria: The number of each stage for it; NaN where a stage has none.
        removing_stage: Index of the stage that removed it; −1 where it was left. A token's record numbers
            links alone, and says `OWN` where the strategy itself removed it (`engine/token_fields.py`).
        luck: Its Gumbel noise; NaN where nothing was drawn.
        sum: Log-probability after the last stage plus luck; −inf where it was removed, NaN as for `luck`.
    """

    id: int
    text: str
    raw_logp: float
    rank: int
    logps: tuple[float, ...]
    criteria: tuple[float, ...]
    removing_stage: int = -1
    luck: float = nan
    sum: float = -inf


@dataclass(frozen=True, slots=True)
class OtherChoice:
    """Names the token that another strategy would have taken, with its defaults and the same luck."""

    strategy: str
    title: str
    id: int
    text: str


@dataclass(frozen=True, slots=True)
class Explanation:
    """Tells why a token was taken.

    Attributes:
        token: The id that was taken.
        winner: The id with the best sum, here and now; it is `token` where the numbers are the draw's own.
        margin: Best sum less the second (nats): no other luck and no rounding below it changes the token.
        candidate_count: Tokens that the stages left.
        chance: Probability of the token in the distribution that it was drawn from.
        entropy: Of the model's own distribution (nats).
        drawn: True where luck decided; False where the best was taken.
        stages: First to last.
        candidates: The token first, then the best sums, the likeliest, and those that were asked for.
        others: What other strategies would have taken.
        facts: What the strategy recorded beside, a name and a text each: parent, Σ log p, p/q, the verdict.
        sentence: The reason in plain words.
        exactness: How far the numbers are those of the draw.
        epsilon: Bound of the error of a sum (nats); 0 where the step's own keys and values were read.
        note: One sentence on exactness, or on what cannot be told; "" where there is nothing to say.
    """

    token: int
    winner: int
    margin: float
    candidate_count: int
    chance: float
    entropy: float
    drawn: bool
    stages: tuple[StageView, ...]
    candidates: tuple[Candidate, ...]
    sentence: str
    others: tuple[OtherChoice, ...] = ()
    facts: tuple[tuple[str, str], ...] = ()
    exactness: Exactness = "own"
    epsilon: float = 0.0
    note: str = ""
