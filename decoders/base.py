"""Holds the contract of a strategy: import everything that a strategy file needs from here.

A strategy reads logits and gives token ids. It never sees a KV cache, a captured graph, a widget or a socket,
so it can be read next to its paper and tested with hand-written numbers. Two kinds of class make one:

* a `Filter` removes or reshapes candidates (top-k, nucleus, min-p …). One file with one filter *is* a
  strategy: `Sampling` (in `registry`) wraps it and adds penalties, temperature and the draw.
* a `Decoder` owns the whole step (greedy, beam, contrastive).

Shapes are written `R` rows (sequences decoded side by side), `K` positions, `V` vocabulary,
`P` parameters. **A step never waits for the device**: no `.item()`, no `if tensor`, no dynamic shapes
outside the CPU, because the same code runs inside captured graphs.

Importing this module loads no torch: sidebars, `--help` and schemas read parameters without it.
"""

from __future__ import annotations

from edge_tui.decoders.core import rows
from edge_tui.decoders.core.best import argmax, best, only
from edge_tui.decoders.core.chain import Chain, Link, merge
from edge_tui.decoders.core.column import Column, names_of
from edge_tui.decoders.core.criterion import Criterion, Edge
from edge_tui.decoders.core.decoder import ChainDecoder, Decoder, Prompt, Step, Stream
from edge_tui.decoders.core.output import Output, difference, last_logits, of_guidance
from edge_tui.decoders.core.params import Param, ParamError, Params
from edge_tui.decoders.core.prefix import cutoff, sort_descending
from edge_tui.decoders.core.random import Rng, draw, noise_of_hypotheses
from edge_tui.decoders.core.records import Choice, Records
from edge_tui.decoders.core.repeats import repeat_lengths
from edge_tui.decoders.core.sequences import LONGEST, SequenceBias, Sequences, encoded
from edge_tui.decoders.core.stage import Env, Filter, Needs, Stage, State, Tensor, Token
from edge_tui.decoders.core.texts import AnyParam, Text, TextParam, Value, numbers, texts
from edge_tui.decoders.core.tokenizer import ByteTokenizer, Tokenizer, tokens_with

__all__ = [
    "LONGEST",
    "AnyParam",
    "ByteTokenizer",
    "Chain",
    "ChainDecoder",
    "Choice",
    "Column",
    "Criterion",
    "Decoder",
    "Edge",
    "Env",
    "Filter",
    "Link",
    "Needs",
    "Output",
    "Param",
    "ParamError",
    "Params",
    "Prompt",
    "Records",
    "Rng",
    "SequenceBias",
    "Sequences",
    "Stage",
    "State",
    "Step",
    "Stream",
    "Tensor",
    "Text",
    "TextParam",
    "Token",
    "Tokenizer",
    "Value",
    "argmax",
    "best",
    "cutoff",
    "difference",
    "draw",
    "encoded",
    "last_logits",
    "merge",
    "names_of",
    "noise_of_hypotheses",
    "numbers",
    "of_guidance",
    "only",
    "repeat_lengths",
    "rows",
    "sort_descending",
    "texts",
    "tokens_with",
]
