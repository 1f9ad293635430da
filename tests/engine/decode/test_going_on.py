"""Every strategy whose rows are samples goes on from kept tokens as the run that was never interrupted."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from edge_tui import decoders
from edge_tui.engine.local import LocalEngine
from edge_tui.engine.port import ModelSpec, Request
from tests.engine.random_checkpoints import make_checkpoint
from tests.engine.watch import Watched, watch

if TYPE_CHECKING:
    from collections.abc import Iterator

    from edge_tui.decoders.base import Decoder, Value


def looks_back(decoder: Decoder) -> bool:
    """Tells whether more than the logits of one prompt decides; of the others the long tests are enough."""
    return (
        decoder.learns or len(decoder.streams) > 1 or max(decoder.before.history, decoder.needs.history) > 0
    )


EACH = pytest.mark.parametrize(
    "name",
    [
        pytest.param(decoder.name, marks=() if looks_back(decoder) else pytest.mark.proof)
        for decoder in decoders.strategies()
        if decoder.kind == "sample"
    ],
)
VALUES: dict[str, dict[str, Value]] = {
    "auto": {"do_sample": "on", "top_k": 50},
    "adaptive_p": {"adaptive_target": 0.1},
    "bad_words": {"bad_words": ("e",)},
    "cfg": {"negative": "nobody"},
    "cad": {"question": "nobody"},
    "contrastive": {"sample": "on"},
    "dry": {"dry_breakers": ()},
    "logit_bias": {"logit_bias": ("e=3",)},
    "mirostat": {"mirostat_tau": 3.0, "mirostat_eta": 0.5},
    "quadratic": {"smoothing_factor": 0.3},
}
"""Values under which a strategy does something; the others do so by default."""
FORCE = '''
"""Takes one token at one step, whatever the strategy before it says."""
from edge_tui.decoders.base import Param, Stage

class Force(Stage):
    name = "force"
    params = (
        Param("force_step", 0, 0, 99, "The step.", 1, True, neutral=None),
        Param("force_id", 0, 0, 999, "The token.", 1, True),
    )

    def init(self, env):
        import torch
        return {"ids": torch.arange(env.vocab).expand(env.rows, -1).clone()}

    def apply(self, z, p, s, rng):
        now = rng.step[:, None] == p["force_step"]
        forced = z.new_full(z.shape, 0.0).masked_fill(s["ids"] != p["force_id"], -float("inf"))
        return forced.where(now, z)
'''
LENGTH, KEPT = 9, 4


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalEngine]:
    folder = tmp_path_factory.mktemp("force")
    (folder / "force.py").write_text(FORCE)
    decoders.load([folder])
    models = tmp_path_factory.mktemp("models")
    weights = {
        role: make_checkpoint(models / role, seed=seed) for seed, role in enumerate(("model", "amateur"))
    }
    specs = {role: ModelSpec(str(path), device="cpu", precision="float32") for role, path in weights.items()}
    engine = LocalEngine({**specs, "expert": specs["model"]})
    yield engine
    assert engine.close(60.0)
    decoders.load([])


def request(name: str) -> Request:
    values = {"temperature": 1.3, **VALUES.get(name, {})}
    if all(param.name != "temperature" for param in decoders.find(name).params):
        del values["temperature"]
    return Request("the quick brown fox and the", name, values, seed=5, max_length=LENGTH)


def going_on(name: str, prefix: list[int], logps: list[tuple[float, float]]) -> Request:
    kept = {"prefix": tuple(prefix), "prefix_logps": tuple(logps), "max_length": LENGTH - len(prefix)}
    return replace(request(name), **kept)  # type: ignore[arg-type]


def recorded(seen: Watched, upto: int) -> list[tuple[float, float]]:
    columns = (map(float, seen.column(name)[:upto]) for name in ("raw_logp", "final_logp"))
    return list(zip(*columns, strict=True))


@EACH
def test_going_on_is_the_uninterrupted_run_and_an_alternative_a_forced_one(
    engine: LocalEngine, name: str
) -> None:
    """A strategy that learns is compared with decoding the kept tokens again, which takes each by force."""
    whole, at = watch(engine, request(name)), KEPT - 1
    assert len(whole.ids) == LENGTH
    rest = watch(engine, going_on(name, whole.ids[:KEPT], recorded(whole, KEPT)))
    assert rest.ids == whole.ids[KEPT:]
    assert rest.column("final_logp") == pytest.approx(whole.column("final_logp")[KEPT:], abs=1e-4)

    raw, final = (
        dict(zip(whole.column(ids)[at].tolist(), whole.column(values)[at].tolist(), strict=True))
        for ids, values in (("top_ids", "top_logp"), ("final_ids", "final_top_logp"))
    )
    other = next(token for token in raw if token != whole.ids[at])
    prefix, known = [*whole.ids[:at], other], (raw[other], final.get(other, float("nan")))
    taken = watch(engine, going_on(name, prefix, [*recorded(whole, at), known]))
    if decoders.find(name).learns:
        forced = watch(engine, going_on(name, prefix, []))
        assert taken.ids == forced.ids
        assert taken.column("final_logp") == pytest.approx(forced.column("final_logp"), abs=1e-4)
        return
    values = {**request(name).values, "force_step": at, "force_id": other}
    forced = watch(engine, replace(request(name), strategy=f"{name}:force", values=values))
    assert forced.ids == [*prefix, *taken.ids]
