"""Finds strategies: files of this package, entry points, files in the user's folders.

An error in one file becomes a `Problem` to show, and the rest is found all the same. Running a user's file
runs its code; only folders that the user names are read.
"""

from __future__ import annotations

import importlib
import inspect
import sys
import traceback
from contextlib import contextmanager, suppress
from hashlib import sha256
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, TypeGuard

from edge_tui.decoders.core.checks import is_own
from edge_tui.decoders.core.decoder import Decoder
from edge_tui.decoders.core.errors import Problem, StrategyError, file_of, place_of
from edge_tui.decoders.core.params import ParamError
from edge_tui.decoders.core.stage import Filter, Stage
from edge_tui.decoders.registry import old_names
from edge_tui.decoders.registry.chain_text import AROUND, ChainError, ChainStrategy, is_chain, read_chain
from edge_tui.decoders.registry.declarations import check_class, check_decoder
from edge_tui.decoders.registry.strategy_files import check_file, list_files, run_file

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from importlib.metadata import EntryPoint

    from edge_tui.decoders.core.chain import Link

GROUP = "edge_tui.decoders"
ALIASES = {"beam_search": "beam", "nucleus": "top_p", "contrastive_decoding": "contrastive"}
_MOST_CHAINS = 1000
"""Typed chains that are kept as objects; the oldest give way, as clients of a server write any number."""


class UnknownStrategy(LookupError):
    """Refuses a name that no strategy has; the message lists the names there are."""


class Registry:
    """Holds the strategies by name.

    Attributes:
        folders: The folders that were searched beside the package and the entry points.
        problems: Errors of the search.
        notices: Sentences for authors of files that work, but will not for ever.
    """

    def __init__(self) -> None:
        self.folders: tuple[Path, ...] = ()
        self.problems: list[Problem] = []
        self.notices: list[str] = []
        self._decoders: dict[str, Decoder] = {}
        self._sources: dict[str, str] = {}
        self._files: set[str] = set()
        self._problem_of: dict[str, Problem] = {}
        self._instances: dict[type, Decoder] = {}
        self._working: dict[str, Decoder] = {}
        self._stages: dict[str, Stage] = {}
        self._stage_of: dict[type[Stage], Stage] = {}
        self._chains: dict[str, tuple[Decoder, Decoder | None, tuple[Link, ...]]] = {}
        """Typed chains by their texts, with the strategy that each stands around, and its links."""
        self._modules: dict[str, tuple[bytes, ModuleType]] = {}
        """The module of each user's file, and the hash of what it was made of."""

    @classmethod
    def load(cls, extra_folders: Sequence[Path] = (), last: Registry | None = None) -> Registry:
        """Searches everywhere, this package first, so that nothing replaces a strategy of its own.

        Args:
            extra_folders: Folders whose `*.py` files are read, in order of name; a missing one is empty, and
                files that start with an underscore are left alone.
            last: An earlier search; a file that no longer works keeps the strategies that it had there, and
                one that did not change keeps its objects, so that its captured graphs stay valid.
        """
        registry = cls()
        registry.folders = tuple(folder.absolute() for folder in extra_folders)
        if last is not None:
            registry._instances = dict(last._instances)
            registry._working = dict(last._working)
            registry._stage_of = dict(last._stage_of)
        for path in sorted(Path(__file__).parents[1].glob("[!_]*.py")):
            registry._add(importlib.import_module(f"edge_tui.decoders.{path.stem}"), str(path))
        before = len(old_names.install().used)
        for entry in _entry_points():
            source = f"entry point {entry.name} = {entry.value}"
            with _reporting(registry, source):
                registry._add(entry.load(), source)
            registry._note_old_name(before, source)
        for number, folder in enumerate(registry.folders):
            paths: list[Path] = []
            with _reporting(registry, str(folder)):
                paths = list_files(folder)
            for path in paths:
                problems = len(registry.problems)
                with _reporting(registry, str(path)):
                    module = registry._module(path, f"decoders_user_{number}_{path.stem}", last)
                    if not registry._add(module, str(path)):
                        raise StrategyError("it holds no strategy: no Filter or Decoder with a name.")
                if last is not None and len(registry.problems) > problems:
                    registry._restore(last, str(path))
                registry._note_old_name(before, str(path))
        registry._files.update(map(str, registry.folders))
        used = set(map(id, registry._decoders.values()))
        registry._instances = {cls: each for cls, each in registry._instances.items() if id(each) in used}
        if last is not None:
            stages = set(map(id, registry._stages.values()))
            registry._chains = {
                key: (chain, base, links)
                for key, (chain, base, links) in last._chains.items()
                if base is None or id(base) in used
                if all(id(link.stage) in stages for link in links)
            }
        return registry

    def _module(self, path: Path, name: str, last: Registry | None) -> ModuleType:
        """Runs a user's file, or takes its module of the last search where nothing in it has changed."""
        check_file(path)
        helpers = sorted(path.parent.glob("_*.py"))  # no strategies themselves, but files may import them
        text = path.read_bytes()
        digest = sha256(b"\0".join((text, *(file.read_bytes() for file in helpers)))).digest()
        before = last._modules.get(str(path)) if last is not None else None
        module = before[1] if before is not None and before[0] == digest else run_file(path, name, text)
        self._modules[str(path)] = digest, module
        return module

    def find(self, name: str) -> Decoder:
        """Returns the strategy of that name or alias, hyphens and case aside, or of a typed chain.

        The name of a stage that is no strategy is a chain of that stage alone.

        Raises:
            UnknownStrategy: with the names there are.
        """
        key = name.strip().lower().replace("-", "_").replace(" ", "")
        if is_chain(key) or (key in self._stages and key not in self._decoders):
            return self._find_chain(key)
        try:
            return self._decoders[ALIASES.get(key, key)]
        except KeyError:
            known = ", ".join(decoder.name for decoder in self.strategies())
            sentence = f"There is no strategy {name!r}; there are {known}."
            if problem := self._problem_of.get(key):
                sentence = f"The strategy {name!r} cannot be used. {problem}"
            raise UnknownStrategy(sentence) from None

    def _find_chain(self, key: str) -> Decoder:
        """Returns the strategy of a typed chain; the same object for the same text."""
        if key not in self._chains:
            name, around, text = key.partition(AROUND)
            text = text if around else name
            try:
                if AROUND in text:
                    raise ChainError("A strategy has one chain around it: write one : and + between stages.")
                links = read_chain(text, self.stage)
                base = self.find(name) if around else None
                decoder = base.around(links) if base is not None else ChainStrategy(links)
                check_decoder(decoder, type(decoder))
            except (ChainError, ParamError) as error:
                raise UnknownStrategy(str(error)) from error
            while len(self._chains) >= _MOST_CHAINS:
                del self._chains[next(iter(self._chains))]
            self._chains[decoder.name] = self._chains[key] = decoder, base, links
        return self._chains[key][0]

    def stage(self, name: str) -> Stage:
        """Returns the stage of that name, as chains are typed; one object for all chains.

        Raises:
            UnknownStrategy: it is only a strategy, its file cannot be used, or nothing has that name.
        """
        key = ALIASES.get(name, name)
        if key in self._stages:
            return self._stages[key]
        if problem := self._problem_of.get(name):
            raise UnknownStrategy(f"The stage {name!r} cannot be used. {problem}")
        if key in self._decoders:
            raise UnknownStrategy(f"{key} is no stage of a chain: put one around it, as in {key}:top_a.")
        names = ", ".join(sorted(self._stages))
        raise UnknownStrategy(f"There is no stage {name!r} for a chain; there are {names}.")

    def stages(self) -> list[Stage]:
        """Lists the stages that chains may be typed of, by name."""
        return [self._stages[name] for name in sorted(self._stages)]

    def strategies(self) -> list[Decoder]:
        """Lists every strategy, by rank, then by name."""
        return sorted(self._decoders.values(), key=lambda decoder: (decoder.rank, decoder.name))

    def defined_in(self, source: str) -> list[Decoder]:
        """Lists the strategies that a file (or entry point) defines."""
        return [decoder for decoder in self.strategies() if self._sources[decoder.name] == source]

    def file_versions(self, decoder: Decoder) -> dict[str, str]:
        """Returns the versions of the users' files that a strategy and its stages are from, as read.

        The keys are "file NAME", the values the beginnings of hashes, which cover the folder's helpers too.
        """
        links = (*decoder.before.links, *decoder.after.links, *decoder.links_around)
        kinds = {type(decoder), *(type(link.stage) for link in links)}
        files = {getattr(sys.modules.get(kind.__module__), "__file__", None) for kind in kinds}
        return {
            f"file {Path(file).name}": self._modules[file][0].hex()[:12]
            for file in sorted(file for file in files if file in self._modules)
        }

    def mark_working(self, decoder: Decoder) -> None:
        """Notes that a strategy has decoded something."""
        self._working[decoder.name] = decoder

    def revert(self, failed: Decoder) -> bool:
        """Goes back from a strategy to the version of it that last decoded something.

        Returns:
            False, and nothing is done, where there is no other version, or a newer one has been read by now.
        """
        working = self._working.get(failed.name, failed)
        if working is failed or self._decoders.get(failed.name) is not failed:
            return False
        self._decoders[failed.name] = working
        return True

    def _restore(self, last: Registry, source: str) -> None:
        """Takes over the strategies that a file had the last time and has no more."""
        for decoder in last.defined_in(source):
            if self._decoders.setdefault(decoder.name, decoder) is decoder:
                self._sources[decoder.name] = source

    def _note_old_name(self, before: int, source: str) -> None:
        """Notes the first source that imports our package by its old name."""
        used = old_names.install().used
        if len(used) > before == 0 and not self.notices:
            old, new = next((pair for pair in used if pair[0] != old_names.OLD), used[0])
            self.notices.append(f"{source} imports {old}: write {new}; the old name still works, for now.")

    def is_strategy_file(self, file: str) -> bool:
        """Tells whether strategies from outside this package were read from a file or its folder."""
        return file in self._files or str(Path(file).parent) in self._files

    def _add(self, found: object, source: str) -> int:
        """Adds the strategies that a module defines, or one class; returns their number."""
        count = 0
        for stage in _stages(found):
            made = self._stage_of.get(stage) or stage()
            self._stage_of[stage] = made
            self._stages.setdefault(stage.name, made)
        for cls in _strategies(found):
            count += 1
            with _reporting(self, source, cls):
                decoder = self._instances.get(cls) or _instance(cls)
                self._instances[cls] = decoder
                if decoder.name in self._decoders or decoder.name in ALIASES:
                    owner = Path(self._sources.get(ALIASES.get(decoder.name, decoder.name), "")).name
                    raise StrategyError(f"the name {decoder.name} is taken by {owner}; choose another.", cls)
                self._decoders[decoder.name] = decoder
                self._sources[decoder.name] = source
                if isinstance(filter := getattr(decoder, "filter", None), Filter):
                    self._stages[decoder.name] = filter
                if not is_own(cls):
                    self._files.add(file_of(cls))
        return count


def _mentions(file: Path) -> bool:
    """Tells whether a file may name our group."""
    try:
        return GROUP.encode() in file.read_bytes()
    except OSError:
        return True


def _entry_points() -> Iterable[EntryPoint]:
    """Lists the entry points that installed packages declare in our group.

    Importing Python's own search takes longer than drawing a screen, and it nearly always finds nothing, so
    the files are searched for our name first.
    """
    places = [Path(entry or ".") for entry in sys.path]
    files: list[Path] = []
    packed = False
    for place in places:
        with suppress(OSError):  # a place that cannot be read holds nothing
            packed = packed or place.is_file()  # an archive, which it alone looks into
            files += place.glob("*.*-info/entry_points.txt")
    if not packed and not any(map(_mentions, files)):
        return ()
    from importlib.metadata import entry_points

    return entry_points(group=GROUP)


@contextmanager
def _reporting(registry: Registry, source: str, cls: type | None = None) -> Iterator[None]:
    """Turns an error inside into a problem of the registry."""
    try:
        yield
    except (Exception, SystemExit) as error:
        problem = Problem(source, *_describe(error, source, cls))
        registry.problems.append(problem)
        names = {str(getattr(cls, "name", "")), Path(source).stem}
        registry._problem_of.update(dict.fromkeys(names, problem))


def _describe(error: BaseException, source: str, cls: type | None) -> tuple[int, str]:
    """Finds the line of an error in a file, and words its sentence."""
    if isinstance(error, StrategyError):
        return error.problem.line, error.problem.sentence
    if isinstance(error, SyntaxError) and error.filename == source:
        return error.lineno or 0, f"{error.msg}."
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == source]
    line = (lines[-1] if lines else None) or (place_of(cls)[1] if cls else 0)
    if isinstance(error, ParamError):
        return line, str(error)
    return line, " ".join(f"{type(error).__name__}: {error}".split())


def _strategies(found: object) -> Iterator[type[Filter] | type[Decoder]]:
    """Yields the named filters and decoders that a module defines itself; a class stands for itself.

    Raises:
        StrategyError: the object is no strategy.
    """
    if not isinstance(found, ModuleType):
        if not (_is_named(found)):
            raise StrategyError(f"{found!r} is neither a named Filter nor a named Decoder.")
        yield found
        return
    for cls in tuple(vars(found).values()):
        # A class that only others inherit from says no name of its own.
        base = inspect.isabstract(cls) and "name" not in vars(cls)
        if _is_named(cls) and not base and cls.__module__ == found.__name__:
            yield cls


def _stages(found: object) -> Iterator[type[Stage]]:
    """Yields the stages with a name that a module defines itself and that are no strategies."""
    if not isinstance(found, ModuleType):
        return
    for cls in tuple(vars(found).values()):
        is_stage = isinstance(cls, type) and issubclass(cls, Stage) and not issubclass(cls, Filter)
        if is_stage and cls.name and cls.__module__ == found.__name__:
            yield cls


def _is_named(found: object) -> TypeGuard[type[Filter] | type[Decoder]]:
    return (
        isinstance(found, type) and issubclass(found, Filter | Decoder) and bool(getattr(found, "name", ""))
    )


def _instance(cls: type[Filter] | type[Decoder]) -> Decoder:
    """Makes a strategy object of a class, its declarations checked.

    Raises:
        StrategyError, ParamError: a declaration is missing or malformed.
    """
    from edge_tui.decoders.registry.sampling import Sampling

    check_class(cls)
    decoder = Sampling(cls()) if issubclass(cls, Filter) else cls()
    check_decoder(decoder, cls)
    return decoder
