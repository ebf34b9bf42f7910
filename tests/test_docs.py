"""The documentation: its examples run and print what they say, its links lead somewhere, and
every public name has an entry."""

import contextlib
import inspect
import io
import re

import equinox as eqx
import jax
import pytest

import hindgrad as hg
from pages import ROOT, name, same

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
NOTEBOOKS = sorted((ROOT / "docs").rglob("*.ipynb"))
LINKED = [*PAGES, *NOTEBOOKS, ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md"]
FENCE = re.compile(r"^```(\w*)([^\n]*)\n(.*?)^```$", re.M | re.S)


def fences(page):
    """(language, rest of the opening line, content, line number) of each fenced block."""
    text = page.read_text()
    for match in FENCE.finditer(text):
        language, info, content = match.groups()
        yield language, info.strip(), content, text.count("\n", 0, match.start(3))


def runnable(page):
    """(code, line, what it prints or None if the page does not say) of each block to be run."""
    found = list(fences(page))
    for (language, info, code, line), after in zip(found, [*found, None][1:], strict=True):
        assert not info, f"{name(page)}, line {line}: the site does not know the fence '{info}'."
        if language == "python":
            yield code, line, after[2] if after and after[0] == "text" else None


def is_run_here(page):
    """Whether this process has the devices that the page is about."""
    return (page.name == "devices.md") == (jax.device_count() == 8)


@pytest.mark.parametrize(
    "page", [p for p in PAGES if any(runnable(p)) and is_run_here(p)], ids=name
)
def test_examples(page, tmp_path, monkeypatch):
    """One page's blocks in one namespace, in order; warnings are errors."""
    monkeypatch.chdir(tmp_path)
    namespace = {"__name__": "docs"}
    with jax.numpy_rank_promotion("allow"):  # as it is for users
        for code, line, output in runnable(page):
            program = compile("\n" * line + code, name(page), "exec")
            with contextlib.redirect_stdout(io.StringIO()) as printed:
                exec(program, namespace)
            if output is not None:
                told = f"{name(page)}, line {line}: printed\n{printed.getvalue()}"
                assert same(printed.getvalue(), output), told


def test_every_public_name_is_documented():
    reference = (ROOT / "docs/api.md").read_text()
    entries = re.findall(r"^::: hindgrad\.(?:\w+\.)*(\w+)$", reference, re.M)
    inits = [ROOT / "src/hindgrad/__init__.py", ROOT / "src/hindgrad/learned/__init__.py"]
    inits.append(ROOT / "src/hindgrad/apps/__init__.py")
    source = "".join(path.read_text() for path in inits)
    public = re.findall(r"^ *from \S+ import \w+ as (\w+)$", source, re.M)
    assert {"Training", "CoordinateLSTM"} <= set(public)
    modules = {name for name in public if inspect.ismodule(getattr(hg, name, None))}
    for module in (getattr(hg, found) for found in modules - {"learned", "apps"}):
        own = lambda c, module=module: inspect.isclass(c) and c.__module__ == module.__name__
        public += [c.__name__ for _, c in inspect.getmembers(module, own) if is_used(c)]
    assert sorted(set(public) - set(entries) - modules) == []


def is_used(kind):
    """Whether a class of a public module is one that users name."""
    return issubclass(kind, eqx.Module | tuple) and not kind.__name__.startswith("_")


def anchors(page):
    """The fragments that a page answers to: its headings, and on the API page its entries."""
    text = FENCE.sub("", page.read_text())
    headings = re.findall(r"^#+ (.*)$", text, re.M)
    slugs = {re.sub(r"[-\s]+", "-", re.sub(r"[^\w\s-]", "", h).strip().lower()) for h in headings}
    return slugs | set(re.findall(r"^::: (\S+)$", text, re.M))


@pytest.mark.parametrize("page", LINKED, ids=name)
def test_links(page):
    links = re.findall(r"\]\(([^)\s]+)\)", FENCE.sub("", page.read_text()))
    for link in links:
        if re.match(r"\w+:", link):
            continue
        path, _, fragment = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), f"{name(page)} links to {link}"
        if fragment and target.suffix == ".md":
            assert fragment in anchors(target), f"{name(page)} links to {link}"
