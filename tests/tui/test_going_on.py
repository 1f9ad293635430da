"""A learner that goes on from the workbench is the run that was never interrupted, here and over HTTP."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from edge_tui import decoders
from edge_tui.config.settings import Settings
from edge_tui.engine.local import LocalEngine
from edge_tui.engine.port import ModelSpec, Request
from edge_tui.tui.run_params import RunParams
from edge_tui.tui.session import Session
from edge_tui.tui.workbench.run_controller import RunController
from tests.engine.random_checkpoints import make_checkpoint
from tests.engine.watch import watch
from tests.learner import LEARNER
from tests.tui.parts import Field, View
from tests.tui.test_run_controller import Turns
from tests.waiting import until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from edge_tui.transcript.transcript import Transcript


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("learner")
    (folder / "learner.py").write_text(LEARNER)
    decoders.load([folder])
    yield str(make_checkpoint(tmp_path_factory.mktemp("models") / "tiny", seed=3))
    decoders.load([])


@pytest.fixture(scope="module")
def local(model: str) -> Iterator[LocalEngine]:
    engine = LocalEngine({"model": ModelSpec(model, device="cpu", precision="float32")})
    yield engine
    assert engine.close(10)


@pytest.fixture(scope="module", params=["here", "over HTTP"])
def engine(request: pytest.FixtureRequest, model: str, local: LocalEngine) -> Iterator[Any]:
    if request.param == "here":
        yield local
        return
    pytest.importorskip("fastapi", reason="the server's libraries are not installed")
    from edge_tui.config.settings import Models
    from edge_tui.engine.remote.engine import RemoteEngine
    from tests.serve.serving import serving

    settings = Settings(models=Models(name=model), device="cpu", precision="float32")
    with serving(settings) as server:
        remote = RemoteEngine(server.url)
        yield remote
        assert remote.close(10)


class Bench:
    """A workbench without a screen; `go` starts a run and waits for its end."""

    def __init__(self, engine: Any, strategy: str = "learner") -> None:
        self.session, self.view = Session(), View()
        self.session.attach(engine)
        self.values = RunParams(Settings(), decoders.find(strategy))
        for key, value in {"temperature": 1.3, "seed": 5}.items():
            self.values.set(key, value)
        if strategy == "learner":
            self.values.set("tau", 3.0)
        self.runs = RunController(
            self.session,
            self.values,
            Field(),
            self.view,
            Turns(),
            lambda *_: True,  # type: ignore[arg-type]
        )

    def go(self, length: int, act: Any = None) -> Transcript:
        self.values.set("max_length", length)
        (act or (lambda: self.runs.start(self.values.request("ab"))))()

        def ended() -> Any:
            self.session.pump()
            return not self.session.busy

        until(ended)
        run = self.session.run
        assert run is not None
        assert run.failed is None
        assert run.transcript is not None
        self.view.transcript = run.transcript
        return run.transcript

    @property
    def request(self) -> Request:
        assert self.session.run is not None
        return self.session.run.request


@pytest.mark.parametrize("strategy", ["learner", "mirostat", "dry+temperature+adaptive_p"])
def test_going_on_twice_is_the_uninterrupted_run(engine: Any, local: LocalEngine, strategy: str) -> None:
    whole = Bench(local, strategy).go(14)
    bench = Bench(engine, strategy)
    bench.go(5)
    bench.go(4, bench.runs.resume)
    rest = bench.go(5, bench.runs.resume)
    assert len(bench.request.prefix_logps) == 9
    assert rest.ids() == whole.ids()
    assert rest.column("final_logp") == pytest.approx(whole.column("final_logp"), abs=1e-4)


def test_kept_tokens_keep_the_parameters_that_they_had(engine: Any, local: LocalEngine) -> None:
    bench = Bench(engine)
    bench.go(5)
    for tau in (1.0, 8.0):
        bench.values.set("tau", tau)
        rest = bench.go(4, bench.runs.resume)
    values = [(index, each["tau"]) for index, each in bench.request.prefix_values]
    assert values == [(0, 3.0), (5, 1.0)]
    again = watch(
        local,
        Request(
            *("ab", "learner", {"temperature": 1.3, "tau": 8.0}),
            seed=5,
            max_length=4,
            prefix=bench.request.prefix,
            prefix_values=((0, {"tau": 3.0}), (5, {"tau": 1.0})),
        ),
    )
    assert again.ids == list(rest.ids()[9:])
    assert again.column("final_logp") == pytest.approx(rest.column("final_logp", 9).tolist(), abs=1e-4)


def test_an_alternative_has_the_numbers_that_were_recorded_of_it(engine: Any, local: LocalEngine) -> None:
    bench = Bench(engine)
    token = bench.go(9).token(4)
    final = {each.id: each.logp for each in token.final}
    other = next(each for each in token.top if each.id != token.id and each.id in final)
    rest = bench.go(6, lambda: bench.runs.take_alternative(4, other.id))
    assert bench.request.prefix_logps[4] == (other.logp, final[other.id])
    forced = watch(
        local,
        Request(
            *("ab", "learner", {"temperature": 1.3, "tau": 3.0}),
            seed=5,
            max_length=6,
            prefix=bench.request.prefix,
        ),
    )
    assert forced.ids == list(rest.ids()[5:])


def test_a_strategy_that_learns_nothing_sends_nothing(engine: Any) -> None:
    bench = Bench(engine)
    bench.values.decoder = decoders.find("top_p")
    bench.go(4)
    bench.go(4, bench.runs.resume)
    assert len(bench.request.prefix) == 4
    assert (bench.request.prefix_logps, bench.request.prefix_values) == ((), ())
