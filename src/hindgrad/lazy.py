"""Public names that are loaded when they are first asked for: the command line, which parses
without JAX, is a part of the package, and most programs do without most of it."""

import ast
import importlib
import inspect
import sys
from collections.abc import Callable
from typing import Any


def public_names(package: str) -> tuple[list[str], Callable[[], list[str]], Callable[[str], Any]]:
    """`__all__`, `__dir__` and `__getattr__` (PEP 562) of a package whose `__init__.py` lists its
    names as imports under `if TYPE_CHECKING:`, where type checkers find them."""
    module = sys.modules[package]
    homes = dict(_listed(module))
    names = sorted(homes)

    def get(name: str) -> Any:
        if name not in homes:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        if homes[name] == package:  # a module of its own
            return importlib.import_module(f"{package}.{name}")
        home = importlib.import_module(homes[name])
        value = getattr(home, name, None) or importlib.import_module(f"{homes[name]}.{name}")
        setattr(module, name, value)
        return value

    return names, lambda: names, get


def _listed(module):
    """Each name, and the module it comes from."""
    for block in ast.parse(inspect.getsource(module)).body:
        for node in block.body if isinstance(block, ast.If) else []:
            if isinstance(node, ast.ImportFrom):
                yield from ((alias.name, node.module or "") for alias in node.names)
