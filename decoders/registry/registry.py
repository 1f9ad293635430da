"""Finds strategies: files of this package, entry points, files in the user's folders.

The search is forgiving: whatever is wrong with someone's file becomes a `Problem` to show, and the rest is
found all the same. Running a user's file runs its code; only folders that the user names are read.
"""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import re
import stat
import sys
import traceback
from contextlib import suppress
from fnmatch import fnmatchcase
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from edge_tui.decoders.core.decoder import Decoder
from edge_tui.decoders.core.errors import Problem, StrategyError, place_of
from edge_tui.decoders.core.params import ParamError
from edge_tui.decoders.core.stage import Filter
from edge_tui.decoders.registry import old_names
from edge_tui.decoders.registry.declarations import check_class, check_decoder

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from importlib.metadata import EntryPoint

GROUP = "edge_tui.decoders"
ALIASES = {"beam_search": "beam", "nucleus": "top_p", "contrastive_decoding": "contrastive"}
_LIMIT = 1_000_000
"""Bytes of the largest file that is run."""
_NAME = re.compile(r"[a-z][a-z0-9_]{0,39}")


class UnknownStrategy(LookupError):
    """No strategy has that name; the message lists the names there are."""


class Registry:
    """The strategies at hand, by name.

    Attributes:
        problems: What went wrong on the search.
        notices: What an author should know although nothing is wrong.
    """

    def __init__(self) -> None:
        self.problems: list[Problem] = []
        self.notices: list[str] = []
        self._decoders: dict[str, Decoder] = {}
        self._sources: dict[str, str] = {}
        self._files: set[str] = set()
        self._broken: dict[str, Problem] = {}
        self._made: dict[type, Decoder] = {}
        self._proven: dict[str, Decoder] = {}

    @classmethod
    def load(cls, extra_folders: Sequence[Path] = (), last: Registry | None = None) -> Registry:
        """Searches everywhere: this package first, so that nothing replaces a strategy of its own.

        Args:
            extra_folders: Folders whose `*.py` files are read, in order of name; a missing one is empty, and
                files that start with an underscore are left alone.
            last: An earlier search; a file that no longer works keeps the strategies that it had there, and
                what did not change is the same object, so that what was captured of it stays good.
        """
        registry = cls()
        if last is not None:
            registry._made = dict(last._made)
            registry._proven = dict(last._proven)
        for path in sorted(Path(__file__).parents[1].glob("[!_]*.py")):
            registry._take(importlib.import_module(f"edge_tui.decoders.{path.stem}"), str(path))
        before = len(old_names.install().used)
        for entry in _entry_points():
            source = f"entry point {entry.name} = {entry.value}"
            with _Reporting(registry, source):
                registry._take(entry.load(), source)
            registry._note_old_name(before, source)
        for number, folder in enumerate(extra_folders):
            paths: list[Path] = []
            with _Reporting(registry, str(folder)):
                paths = _files(folder.absolute())
            for path in paths:
                problems = len(registry.problems)
                with _Reporting(registry, str(path)):
                    module = _run(path, f"decoders_user_{number}_{path.stem}")
                    if not registry._take(module, str(path)):
                        raise StrategyError("it holds no strategy: no Filter or Decoder with a name.")
                if last is not None and len(registry.problems) > problems:
                    registry._keep(last, str(path))
                registry._note_old_name(before, str(path))
        registry._files.update(str(folder.absolute()) for folder in extra_folders)
        kept = set(map(id, registry._decoders.values()))
        registry._made = {made: decoder for made, decoder in registry._made.items() if id(decoder) in kept}
        return registry

    def find(self, name: str) -> Decoder:
        """The strategy of that name or alias, hyphens and case aside.

        Raises:
            UnknownStrategy: with the names there are.
        """
        key = name.strip().lower().replace("-", "_")
        try:
            return self._decoders[ALIASES.get(key, key)]
        except KeyError:
            known = ", ".join(decoder.name for decoder in self.strategies())
            sentence = f"There is no strategy {name!r}; there are {known}."
            if broken := self._broken.get(key):
                sentence = f"The strategy {name!r} cannot be used. {broken}"
            raise UnknownStrategy(sentence) from None

    def strategies(self) -> list[Decoder]:
        """Every strategy, by rank, then by name."""
        return sorted(self._decoders.values(), key=lambda decoder: (decoder.rank, decoder.name))

    def of(self, source: str) -> list[Decoder]:
        """The strategies that a file (or entry point) defines."""
        return [decoder for decoder in self.strategies() if self._sources[decoder.name] == source]

    def mark_working(self, decoder: Decoder) -> None:
        """Notes that a strategy has decoded something."""
        self._proven[decoder.name] = decoder

    def revert(self, failed: Decoder) -> bool:
        """Goes back from a strategy to the version of it that last decoded something.

        Returns:
            False, and nothing is done, where there is no other version, or a newer one has been read by now.
        """
        proven = self._proven.get(failed.name, failed)
        if proven is failed or self._decoders.get(failed.name) is not failed:
            return False
        self._decoders[failed.name] = proven
        return True

    def _keep(self, last: Registry, source: str) -> None:
        """Takes over what a file gave the last time, unless it gave as much this time."""
        for decoder in last.of(source):
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

    def _take(self, found: object, source: str) -> int:
        """Adds the strategies that a module defines, or one class; returns how many it saw."""
        count = 0
        for cls in _strategies(found):
            count += 1
            with _Reporting(self, source, cls):
                decoder = self._made.get(cls) or _instance(cls)
                self._made[cls] = decoder
                if decoder.name in self._decoders or decoder.name in ALIASES:
                    owner = Path(self._sources.get(ALIASES.get(decoder.name, decoder.name), "")).name
                    raise StrategyError(f"the name {decoder.name} is taken by {owner}; choose another.", cls)
                self._decoders[decoder.name] = decoder
                self._sources[decoder.name] = source
                if cls.__module__.partition(".")[0] != __package__:
                    self._files.add(place_of(cls)[0])
        return count


def _mentions(file: Path) -> bool:
    """Whether a file may speak of our group."""
    try:
        return GROUP.encode() in file.read_bytes()
    except OSError:
        return True


def _entry_points() -> Iterable[EntryPoint]:
    """What installed packages declare in our group.

    Python's own search takes longer to be imported than a screen to be drawn, and nearly always finds
    nothing, so files are asked first whether it could.
    """
    places = [Path(entry or ".") for entry in sys.path]
    files: list[Path] = []
    packed = False
    for place in places:
        with suppress(OSError):  # a place that nobody may look into holds nothing
            packed = packed or place.is_file()  # an archive, which it alone looks into
            files += place.glob("*.*-info/entry_points.txt")
    if not packed and not any(map(_mentions, files)):
        return ()
    from importlib.metadata import entry_points

    return entry_points(group=GROUP)


class _Reporting:
    """Turns whatever is raised inside into a problem of the registry."""

    def __init__(self, registry: Registry, source: str, cls: type | None = None) -> None:
        self.registry, self.source, self.cls = registry, source, cls

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> bool:
        if not isinstance(error, Exception | SystemExit):
            return False
        if isinstance(error, SyntaxError) and error.filename == self.source:
            line, sentence = error.lineno or 0, f"{error.msg}."
        else:
            frames = [
                f.lineno for f in traceback.extract_tb(error.__traceback__) if f.filename == self.source
            ]
            line = (frames[-1] if frames else None) or _line_of(self.cls)
            sentence = " ".join(f"{type(error).__name__}: {error}".split())
            if isinstance(error, ParamError):
                sentence = str(error)
            elif isinstance(error, StrategyError):
                line, sentence = error.problem.line, error.problem.sentence
        problem = Problem(self.source, line, sentence)
        self.registry.problems.append(problem)
        names = {str(getattr(self.cls, "name", "")), Path(self.source).stem}
        self.registry._broken.update(dict.fromkeys(names, problem))
        return True


def _files(folder: Path) -> list[Path]:
    """The files of a folder that may hold strategies; none where there is no folder.

    Raises:
        StrategyError: the folder cannot be read.
    """
    try:
        return sorted(path for path in folder.iterdir() if fnmatchcase(path.name, "[!_]*.py"))
    except FileNotFoundError:
        return []
    except OSError as error:
        raise StrategyError(f"it cannot be read ({error.strerror}), so nothing in it is used.") from error


def _check_file(path: Path) -> None:
    """Refuses what would hang its reader (a pipe, a device) or fill the memory.

    Raises:
        StrategyError: it is no file, too large, or cannot be read.
    """
    try:
        seen = path.stat()
    except OSError as error:
        raise StrategyError(f"it cannot be read ({error.strerror}).") from error
    if not stat.S_ISREG(seen.st_mode):
        raise StrategyError("it is no file; a strategy is a file of Python code.")
    if seen.st_size > _LIMIT:
        raise StrategyError(f"it has {seen.st_size:,} bytes; a strategy takes at most {_LIMIT:,}.")


def _run(path: Path, name: str) -> ModuleType:
    """Runs a file as a module, without leaving compiled files in the user's folder."""
    _check_file(path)
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ImportError("it cannot be read as Python.")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    writes, sys.dont_write_bytecode = sys.dont_write_bytecode, True
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    finally:
        sys.dont_write_bytecode = writes
    return module


def _strategies(found: object) -> Iterator[type[Filter] | type[Decoder]]:
    """The named filters and decoders that a module defines itself; a class stands for itself.

    Raises:
        StrategyError: the object is no strategy.
    """
    if not isinstance(found, ModuleType):
        if not (isinstance(found, type) and issubclass(found, Filter | Decoder) and hasattr(found, "name")):
            raise StrategyError(f"{found!r} is neither a named Filter nor a named Decoder.")
        yield found
        return
    for cls in tuple(vars(found).values()):
        named = isinstance(cls, type) and issubclass(cls, Filter | Decoder) and hasattr(cls, "name")
        # A class that only others inherit from says no name of its own.
        base = named and inspect.isabstract(cls) and "name" not in vars(cls)
        if named and not base and cls.__module__ == found.__name__:
            yield cls


def _instance(cls: type[Filter] | type[Decoder]) -> Decoder:
    """A strategy object of a class, its declarations checked.

    Raises:
        StrategyError, ParamError: a declaration is missing or malformed.
    """
    from edge_tui.decoders.registry.sampling import Sampling

    check_class(cls)
    if not _NAME.fullmatch(cls.name):
        raise StrategyError(f"the name {cls.name!r} is not lower case letters, digits and underscores.", cls)
    decoder = Sampling(cls()) if issubclass(cls, Filter) else cls()
    check_decoder(decoder, cls)
    return decoder


def _line_of(cls: type | None) -> int:
    """The line where a class is defined, 0 where there is no source.

    Its whole file is read and parsed for that: only what has a problem is looked for.
    """
    try:
        return inspect.getsourcelines(cls)[1] if cls else 0
    except (OSError, TypeError):
        return 0
