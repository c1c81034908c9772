"""Act when the application imports a module: what it does not use is not imported for it."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Final

Action = Callable[[], object]


class _ThenAct(Loader):
    """Loads a module by its own loader, which it puts back in its place, and then acts."""

    def __init__(self, inner: Loader, act: Callable[[str], None]) -> None:
        self._inner = inner
        self._act = act

    def __getattr__(self, name: str) -> object:
        """What else the loader can do: `runpy`, `pkgutil` and `importlib.resources` read files and code through it."""
        if name == "_inner":  # of a copy that is not filled yet
            raise AttributeError(name)
        return getattr(self._inner, name)

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self._inner.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        module.__loader__ = self._inner
        if module.__spec__ is not None:
            module.__spec__.loader = self._inner
        self._inner.exec_module(module)
        self._act(module.__name__)


class _Searches(threading.local):
    """The modules that the current thread searches: another finder may ask all finders too, this one included."""

    def __init__(self) -> None:
        self.names: set[str] = set()


class _Waiting(MetaPathFinder):
    """Finds nothing itself: it has the other finders find what is waited for, and wraps the loader.

    It takes no lock: an action runs while the import system holds that of its module.
    """

    def __init__(self) -> None:
        self.actions: dict[str, Action] = {}
        self._searches = _Searches()

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        searched = self._searches.names
        if fullname not in self.actions or fullname in searched:
            return None
        searched.add(fullname)
        try:
            found = self._search(fullname, path, target)
        finally:
            searched.discard(fullname)
        if found is not None and found.loader is not None and hasattr(found.loader, "exec_module"):
            found.loader = _ThenAct(found.loader, self.act)
        return found

    def _search(self, fullname: str, path: Sequence[str] | None, target: ModuleType | None) -> ModuleSpec | None:
        """What the first other finder finds."""
        for finder in sys.meta_path:
            # Old finders, such as those of vendored copies of six, have no `find_spec`: the import system skips them.
            find = None if finder is self else getattr(finder, "find_spec", None)
            found: ModuleSpec | None = None if find is None else find(fullname, path, target)
            if found is not None:
                return found
        return None

    def act(self, name: str) -> None:
        """Do what waits for this module, once."""
        action = self.actions.pop(name, None)
        if action is not None:
            action()


_waiting: Final = _Waiting()


def when_imported(module: str, action: Action) -> None:
    """Act once, behind the import of a module: at once if it is imported already.

    An import that another thread has begun escapes; `is_awaited` tells afterwards.

    Args:
        module: its full name.
        action: must not raise; the import that it follows would fail.
    """
    _waiting.actions[module] = action
    if _waiting not in sys.meta_path:
        sys.meta_path.insert(0, _waiting)
    if is_imported(module):
        _waiting.act(module)


def is_imported(module: str) -> bool:
    """Whether a module is imported, to its end."""
    found = sys.modules.get(module)
    return found is not None and not getattr(getattr(found, "__spec__", None), "_initializing", False)


def is_awaited(module: str) -> bool:
    """Whether an action waits for a module that is not imported yet. One whose import escaped is done now."""
    if is_imported(module):
        _waiting.act(module)
    return module in _waiting.actions


def forget(module: str) -> None:
    """Let go of the action that waits for a module."""
    _waiting.actions.pop(module, None)
    if not _waiting.actions and _waiting in sys.meta_path:
        sys.meta_path.remove(_waiting)
