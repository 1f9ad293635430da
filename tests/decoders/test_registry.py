"""Searches for strategies; a broken one stops no other."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from textwrap import dedent

import pytest
import torch

from edge_tui import decoders
from edge_tui.decoders import greedy
from edge_tui.decoders.base import Env, Output
from edge_tui.decoders.core.errors import place_of
from edge_tui.decoders.registry.registry import Registry, UnknownStrategy
from tests.decoders.driver import begin, numbers, param_values, table

EPSILON = '''
"""Epsilon sampling (Hewitt et al., arXiv 2210.15191): keep p ≥ ε."""

from edge_tui.decoders.base import Filter, Param


class Epsilon(Filter):
    name = "{name}"
    title = "epsilon"
    summary = "Draws from tokens of at least probability ε."
    params = (Param("epsilon", default=0.02, low=0, high=0.5, help="Least probability of a kept token."),)

    def apply(self, z, p, s, rng):
        return z.masked_fill(z.softmax(-1) < p["epsilon"], -float("inf"))
'''


DECODER = """from edge_tui.decoders.base import Decoder, Needs, Param, Step, Stream


class Mine(Decoder):
    name = "mine"
    title = "mine"
    summary = "Takes the first token."
    {body}

    def init(self, env):
        return {{}}

    def step(self, outs, s, p, rng):
        raise NotImplementedError
"""


def epsilon(name: str, old: str, new: str) -> str:
    """Returns the file with one mistake."""
    text = EPSILON.format(name=name).replace("Filter, Param", "Edge, Filter, Needs, Param")
    assert text.count(old) >= 1
    head, found, rest = text.partition("class Epsilon")
    return head + found + rest.replace(old, new, 1)


def decoder_of(body: str) -> str:
    return DECODER.format(body=body)


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(dedent(text))
    return path


def package(root: Path, module: str, value: str, body: str) -> None:
    """Writes an installed package as pip leaves it: a module, and metadata that announces it."""
    write(root / f"{module}.py", body)
    info = root / f"{module}-1.0.dist-info"
    write(info / "METADATA", f"Metadata-Version: 2.1\nName: {module}\nVersion: 1.0\n")
    write(info / "entry_points.txt", f"[edge_tui.decoders]\n{module} = {value}\n")


def works(registry: Registry, name: str) -> None:
    decoder = registry.find(name)
    assert [param.name for param in decoder.params][:2] == ["epsilon", "temperature"]
    z = torch.tensor([[0.9, 0.09, 0.01]]).log()
    env = Env(1, 3, "cpu", torch.tensor([[0]]), torch.tensor([]), param_values(decoder), 9)
    step = decoder.step({"model": Output(z[:, None])}, begin(decoder, env), table(decoder), numbers())
    assert (step.final > -torch.inf).tolist() == [[True, True, False]]


def test_the_strategies_in_the_order_of_their_keys() -> None:
    names = [decoder.name for decoder in decoders.strategies()]
    assert names[:8] == ["greedy", "beam", "top_k", "top_p", "min_p", "typical", "contrastive", "auto"]
    assert [decoder.title for decoder in decoders.strategies()][2:5] == ["top-k", "top-p", "min-p"]


@pytest.mark.parametrize(
    ("given", "name"),
    [
        ("beam_search", "beam"),
        ("beam-search", "beam"),
        ("Top-P", "top_p"),
        (" min-p ", "min_p"),
        ("auto", "auto"),
    ],
)
def test_aliases_hyphens_and_case(given: str, name: str) -> None:
    assert decoders.find(given).name == name


def test_an_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(
        UnknownStrategy, match=r"no strategy 'topk'; there are greedy, beam, .*, auto, speculative, .*\."
    ):
        decoders.find("topk")


def test_a_file_in_the_users_folder_is_a_strategy(tmp_path: Path) -> None:
    write(tmp_path / "my_epsilon.py", EPSILON.format(name="my_epsilon"))
    write(tmp_path / "_helper.py", "raise RuntimeError('not read')")
    registry = Registry.load([tmp_path, tmp_path / "missing"])
    assert not registry.problems
    works(registry, "my-epsilon")
    assert registry.strategies()[-1].name == "my_epsilon"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["_helper.py", "my_epsilon.py"]


@pytest.mark.parametrize("value", ["{module}", "{module}:Epsilon"])
def test_an_installed_package_announces_a_strategy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, value: str
) -> None:
    module = "edge_eps_module" if ":" not in value else "edge_eps_class"
    package(tmp_path, module, value.format(module=module), EPSILON.format(name="pip_epsilon"))
    monkeypatch.syspath_prepend(tmp_path)
    registry = Registry.load()
    assert not registry.problems
    works(registry, "pip_epsilon")


BROKEN = {
    "syntax.py": (
        "from edge_tui.decoders.base import Filter\n\nclass A(Filter)\n    pass\n",
        3,
        "expected ':'",
    ),
    "raises.py": ("import os\n\nos.no_such_thing\n", 3, "no_such_thing"),
    "exits.py": ("x = 1\nraise SystemExit(3)\n", 2, "SystemExit"),
    "latin.py": (b"x = 1\nname = '\xe9'\n", 2, "utf-8"),
    "untitled.py": (
        "from edge_tui.decoders.base import Filter\n\nclass A(Filter):\n    name = 'untitled'\n"
        "    def apply(self, z, p, s, rng):\n        return z\n",
        3,
        "A has no title.",
    ),
    "taken.py": (EPSILON.format(name="top_p"), 7, "the name top_p is taken by top_p.py"),
    "shouting.py": (EPSILON.format(name="Not A Name"), 7, "lower case"),
    "default.py": (EPSILON.format(name="bad_default").replace("0.02", "7"), 7, "epsilon is 7"),
    "neutral.py": (
        epsilon("bad_neutral", ", help", ", neutral=2, help"),
        7,
        "the neutral value of epsilon is 2",
    ),
    "bounds.py": (epsilon("bad_bounds", "low=0", "low=1"), 7, "epsilon goes from 1 to 0.5"),
    "step.py": (epsilon("bad_step", ", help", ", step=0, help"), 7, "epsilon has the step 0"),
    "label.py": (epsilon("bad_param", '"epsilon",', '"ep silon",'), 7, "'ep silon' is no identifier"),
    "twice.py": (epsilon("twice", "params = (", "params = 2 * ("), 7, "declares the parameter epsilon twice"),
    "clash.py": (epsilon("clash", '"epsilon",', '"temperature",'), 7, "parameter temperature differently"),
    "tuple.py": (epsilon("no_tuple", "),)", "))"), 7, "Epsilon.params must be a tuple of Param"),
    "rank.py": (epsilon("bad_rank", "params", "rank = None\n    params"), 7, "Epsilon.rank is None"),
    "hidden.py": (
        epsilon("hidden", "params", "needs = Needs(hidden=(1,))\n    params"),
        7,
        "asks for layers, which a stage never sees",
    ),
    "layers.py": (decoder_of("needs = Needs(early=3)"), 4, "has early=3, but must have a tuple of layers"),
    "edge.py": (
        epsilon("bad_edge", "params", "edge = Edge('depth', None, 'e')\n    params"),
        7,
        "Epsilon.edge",
    ),
    "takes.py": (epsilon("takes", "z, p, s, rng", "z, p"), 13, "Epsilon.apply must take (z, p, s, rng)"),
    "spelt.py": (epsilon("spelt", "def apply", "def aply"), 7, "Epsilon has no apply"),
    "nothing.py": ("from edge_tui.decoders.base import Filter\n", 0, "holds no strategy"),
    "init.py": (
        epsilon("in_init", "def apply", "def __init__(self):\n        1 / 0\n\n    def apply"),
        14,
        "Zero",
    ),
    "params.py": (decoder_of("@property\n    def params(self):\n        return 1 / 0"), 10, "ZeroDivision"),
    "prompt.py": (
        decoder_of("streams = Stream('model', 'model', prompt='negative'),"),
        4,
        "the prompt 'negative'",
    ),
    "role.py": (decoder_of("streams = Stream('model', 'expert'),"), 4, "'expert', which is no role"),
    "roles.py": (decoder_of("roles = 'model'"), 4, "roles must be a tuple of str"),
    "unread.py": (
        decoder_of("roles = 'model', 'draft'\n    streams = Stream('model', 'model'),"),
        4,
        "no stream reads",
    ),
    "names.py": (decoder_of("roles = 'model', 'model'"), 4, "two streams with the name"),
    "columns.py": (decoder_of("columns = 'mu'"), 4, "columns must be a tuple of str"),
    "column.py": (
        decoder_of("columns = Column('mu', role='mean'),").replace("import ", "import Column, ", 1),
        4,
        "its column 'mu' the role 'mean', which must be one of",
    ),
    "bound.py": (
        decoder_of("columns = Column('mu', low=float('nan')),").replace("import ", "import Column, ", 1),
        4,
        "a bound that is not finite: leave it out",
    ),
    "needs.py": (decoder_of("needs = Needs(counts=True)"), 4, "is read of stages alone"),
    "rows.py": (decoder_of("def rows(self, values):\n        return 4"), 4, "must set owns_eos"),
    "finish.py": (
        decoder_of("owns_eos = True\n\n    def rows(self, values):\n        return 4"),
        4,
        "must have finish",
    ),
    "odd_rows.py": (decoder_of("def rows(self, values):\n        return 2.5"), 8, "rows returned 2.5"),
    "ahead.py": (
        decoder_of("def lookahead(self, values):\n        return 3\n\n    owns_eos = True"),
        4,
        "must have one row, one stream or two",
    ),
    "no_draft.py": (
        decoder_of("def lookahead(self, values):\n        return 3"),
        4,
        "so it must have propose",
    ),
}


def test_a_broken_file_is_reported_with_its_line_and_stops_no_other(tmp_path: Path) -> None:
    for name, (text, _, _) in BROKEN.items():
        (tmp_path / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    write(tmp_path / "zz_fine.py", EPSILON.format(name="fine"))
    registry = Registry.load([tmp_path])
    works(registry, "fine")
    assert registry.find("top_p").params[0].name == "top_p"
    reported = {Path(problem.source).name: problem for problem in registry.problems}
    assert reported.keys() == BROKEN.keys()
    for name, (_, line, words) in BROKEN.items():
        assert words in reported[name].sentence, reported[name]
        assert reported[name].line == line, reported[name]
        assert "\n" not in str(reported[name])


def test_whoever_asks_for_a_strategy_that_cannot_be_read_is_told_why(tmp_path: Path) -> None:
    write(tmp_path / "cfg.py", decoder_of("streams = Stream('model', 'expert'),"))
    write(tmp_path / "spelt_wrong.py", "from edge_tui.decoders.base import Filtre\n")
    registry = Registry.load([tmp_path])
    with pytest.raises(UnknownStrategy, match=r"cfg\.py, line 4: the stream 'model' reads 'expert'"):
        registry.find("mine")
    with pytest.raises(UnknownStrategy, match=r"spelt_wrong\.py, line 1: ImportError"):
        registry.find("spelt-wrong")


@pytest.mark.parametrize(
    "newer", ["", "class Epsilon(", "\0", "(" * 9999], ids=["empty", "cut", "zero", "deep"]
)
def test_a_file_that_changes_while_it_is_read_is_what_was_read(tmp_path: Path, newer: str) -> None:
    """An editor may save at any moment: what is there then is the next search's."""
    file = write(tmp_path / "mine.py", EPSILON.format(name="mine"))
    file.write_text(file.read_text() + f"\nfrom pathlib import Path\nPath(__file__).write_text({newer!r})\n")
    registry = Registry.load([tmp_path])
    assert registry.problems == []
    works(registry, "mine")
    assert registry.is_strategy_file(str(file))
    assert place_of(type(registry.stage("mine"))) == (str(file), 0)
    assert Registry.load([tmp_path], registry).problems[0].source == str(file)


def test_a_name_is_held_by_one_file(tmp_path: Path) -> None:
    for file in ("a.py", "b.py"):
        write(tmp_path / file, EPSILON.format(name="one"))
    (problem,) = Registry.load([tmp_path]).problems
    assert str(problem).endswith("b.py, line 7: the name one is taken by a.py; choose another.")


def test_a_relative_folder_is_the_same_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "strategies" / "twice.py", epsilon("twice", "params = (", "params = 2 * ("))
    write(tmp_path / "strategies" / "fine.py", EPSILON.format(name="fine"))
    monkeypatch.chdir(tmp_path)
    try:
        decoders.load([Path("strategies")])
        (problem,) = decoders.current().problems
        assert Path(problem.source) == tmp_path / "strategies" / "twice.py"
        assert decoders.current().folders == (tmp_path / "strategies",)
        assert decoders.current().is_strategy_file(str(tmp_path / "strategies" / "fine.py"))
        assert not decoders.current().is_strategy_file(greedy.__file__)
    finally:
        decoders.load()


def test_a_broken_package_is_reported_and_stops_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package(tmp_path, "edge_broken", "edge_broken:nothing_here", "x = 1\n")
    package(tmp_path, "edge_not_one", "edge_not_one:x", "x = 1\n")
    monkeypatch.syspath_prepend(tmp_path)
    registry = Registry.load()
    assert len(registry.strategies()) >= 8
    assert {problem.source.split()[2] for problem in registry.problems} == {"edge_broken", "edge_not_one"}


def test_loading_again_makes_the_users_strategies_known_everywhere(tmp_path: Path) -> None:
    write(tmp_path / "mine.py", EPSILON.format(name="mine"))
    try:
        decoders.load([tmp_path])
        assert decoders.find("mine").title == "epsilon"
        assert decoders.current().problems == []
    finally:
        decoders.load()
    with pytest.raises(UnknownStrategy):
        decoders.find("mine")


def test_finding_strategies_and_reading_parameters_loads_no_torch() -> None:
    code = """
        import sys
        from edge_tui import decoders
        read = [param.limits() + param.help for decoder in decoders.strategies() for param in decoder.params]
        assert len(read) > 40, read
        for decoder in decoders.strategies():
            decoder.rows({}), decoder.streams
        decoders.find("auto").from_checkpoint({"do_sample": True})
        heavy = {"torch", "numpy", "transformers", "textual"} & sys.modules.keys()
        heavy |= {name for name in sys.modules if name.startswith("edge_tui.e")}
        assert not heavy, heavy
    """
    subprocess.run([sys.executable, "-c", dedent(code)], check=True, cwd=Path(__file__).parents[2])


@pytest.mark.proof
def test_no_strategy_knows_what_runs_it() -> None:
    """Even after a step: neither edge_tui nor transformers is imported by any of them."""
    code = """
        import sys
        from edge_tui import decoders
        from edge_tui.decoders.testing import check
        for decoder in decoders.strategies():
            check(decoder, 1)
        assert not {"transformers", "textual"} & sys.modules.keys()
        ours = {name for name in sys.modules if name.startswith("edge_tui.")}
        assert all(name.startswith("edge_tui.decoders") for name in ours), ours
    """
    subprocess.run([sys.executable, "-c", dedent(code)], check=True, cwd=Path(__file__).parents[2])


def test_what_works_no_more_stays_as_it_was_and_what_did_not_change_is_the_same(tmp_path: Path) -> None:
    good = write(tmp_path / "mine.py", EPSILON.format(name="mine"))
    first = Registry.load([tmp_path])
    good.write_text("def (")
    second = Registry.load([tmp_path], first)
    assert second.find("mine") is first.find("mine")
    assert [problem.line for problem in second.problems] == [1]
    good.write_text(EPSILON.format(name="mine").replace("0.02", "0.03"))
    third = Registry.load([tmp_path], second)
    assert third.find("mine") is not first.find("mine")
    assert third.find("mine").params[0].default == 0.03
    assert third.find("top_p") is first.find("top_p")
    assert third.defined_in(str(good)) == [third.find("mine")]
    good.unlink()
    with pytest.raises(UnknownStrategy):
        Registry.load([tmp_path], third).find("mine")


def test_a_version_that_fails_gives_way_to_the_last_that_decoded(tmp_path: Path) -> None:
    file = write(tmp_path / "mine.py", EPSILON.format(name="mine"))
    first = Registry.load([tmp_path])
    good = first.find("mine")
    assert not first.revert(good), "nothing has decoded yet"
    first.mark_working(good)
    assert not first.revert(good), "it is in use"
    write(file, EPSILON.format(name="mine") + "# saved again")
    second = Registry.load([tmp_path], first)
    bad = second.find("mine")
    assert bad is not good
    write(file, EPSILON.format(name="mine") + "# and once more")
    newer = Registry.load([tmp_path], second)
    assert not newer.revert(bad), "what failed is in use no more"
    assert second.revert(bad)
    assert second.find("mine") is good


def test_a_reload_keeps_the_objects_of_files_that_did_not_change(tmp_path: Path) -> None:
    """Their captured graphs stay valid; chains of them stay the same, too."""
    for name in ("stays", "changes"):
        write(tmp_path / f"{name}.py", EPSILON.format(name=name))
    first = Registry.load([tmp_path])
    chains = ("temperature+stays", "beam:stays", "temperature+changes")
    before = {name: first.find(name) for name in ("stays", "changes", *chains)}
    write(tmp_path / "changes.py", EPSILON.format(name="changes") + "\n# another line\n")
    second = Registry.load([tmp_path], first)
    assert not second.problems
    for name, decoder in before.items():
        assert (second.find(name) is decoder) == ("changes" not in name), name
    write(tmp_path / "_helper.py", "# files may import it")
    third = Registry.load([tmp_path], second)
    assert third.find("stays") is not before["stays"]
    assert third.find("top_p") is first.find("top_p")
