"""Rules for the code that no linter has."""

import ast
import importlib
import inspect
import pkgutil
from pathlib import Path

import equinox as eqx
import pytest

import hindgrad

SOURCE = Path(hindgrad.__file__).parent
FILES = sorted(SOURCE.rglob("*.py"))


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(SOURCE)))
def test_sizes(path):
    check_sizes(path)


def check_sizes(path):
    """No file over 400 lines, no function over 80 without its docstring."""
    text = path.read_text()
    assert len(text.splitlines()) < 400
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef):
            first = node.body[1 if ast.get_docstring(node) and len(node.body) > 1 else 0]
            assert (node.end_lineno or 0) - first.lineno < 80, node.name


def test_classes_are_abstract_or_final():
    """A class with subclasses has abstract methods or attributes of its own, or adds none."""
    modules = [
        importlib.import_module(m.name)
        for m in pkgutil.walk_packages(hindgrad.__path__, "hindgrad.")
        if m.name != "hindgrad.__main__"
    ]
    classes = {
        c
        for module in modules
        for _, c in inspect.getmembers(module, inspect.isclass)
        if c.__module__.startswith("hindgrad") and issubclass(c, eqx.Module)
    }
    assert len(classes) > 10
    parents = {base for c in classes for base in c.__mro__[1:] if base in classes}
    concrete = {c for c in parents if not inspect.isabstract(c) and not _has_abstract_vars(c)}
    assert not concrete


def _has_abstract_vars(c):
    return bool(getattr(c, "__abstractvars__", ())) or bool(getattr(c, "__abstractclassvars__", ()))


def test_imports_run_downward():
    """A lower layer never imports a higher one."""
    layers = [
        "lazy",
        "cores",
        "placement",
        "trees",
        "arguments",
        "model_state",
        "microbatches",
        "files",
        "progress",
        "cost",
        "checkpoint",
        "jaxprs",
        "numerics",
        "anchors",
        "complex_parts",
        "reproducible",
        "errors",
        "programs",
        "rules",
        "several",
        "shards",
        "reductions",
        "transposes",
        "sums",
        "exact",
        "optimizers",
        "dynamics",
        "gradient_training",
        "adjoints",
        "batches",
        "cross_entropy",
        "streams",
        "schedules",
        "training",
        "objective",
        "jacobians",
        "segments",
        "target",
    ]
    layers += ["diagnostics", "tuning", "attribution", "learned", "apps"]
    rank = {name: i for i, name in enumerate(layers)}
    for path in FILES:
        layer = path.relative_to(SOURCE).parts[0].removesuffix(".py")
        if layer in ("__init__", "__main__"):
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("hindgrad."):
                imported = (node.module or "").split(".")[1]
                assert rank[imported] <= rank[layer], f"{path} imports {node.module}"
