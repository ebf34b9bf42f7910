"""The tables of the documentation that follow from the code: `python docs/tables.py` writes them
into the pages; with `--check` it writes nothing, and fails if a page is out of date."""

import argparse
import re
from pathlib import Path

import hindgrad as hg
from hindgrad.optimizers.from_optax.derivatives import PLACES, ROWS

DOCS = Path(__file__).parent
HEADINGS = {
    "states": "past states come from",
    "memory": "memory",
    "replays": "steps run again",
    "exact": "exact",
    "optimizers": "optimizers",
}
EXACTNESS = ("yes", "at", "no")
"""The first words of `Traits.exact`, in the order of the rows."""


def adjoints() -> str:
    """A row for every public adjoint, of what its `traits` say; the exact ones first."""
    named = [getattr(hg, name) for name in hg.__all__]
    found = [x for x in named if isinstance(x, type) and issubclass(x, hg.Adjoint)]
    with_traits = {x.__name__: x.traits for x in found if x.traits is not None}
    place = lambda name: (EXACTNESS.index(re.split(r"\W", with_traits[name].exact)[0]), name)
    rows = [["adjoint", *HEADINGS.values()], ["---"] * (1 + len(HEADINGS))]
    for name in sorted(with_traits, key=place):
        cells = [getattr(with_traits[name], heading) for heading in HEADINGS]
        rows.append([f"[`{name}`](api.md#hindgrad.{name})", *cells])
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def derivatives() -> str:
    """A row for each kind of optax transformation whose derivative is NaN at zero gradients."""
    rows = [["in optax and optax.contrib", "NaN", "what helps"], ["---"] * 3]
    for names, row in ROWS.items():
        place = PLACES[row.at] if row.at else ""
        if row.float32:
            place = "; ".join(filter(None, [place, f"in float32 {PLACES[row.float32]}"]))
        rows.append([", ".join(f"`{name}`" for name in names.split()), place, row.cure])
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


TABLES = {
    "adjoints.md": {"adjoints": adjoints},
    "optimizer.md": {"derivatives": derivatives},
}
"""For each page, what stands between the markers `<!-- name -->` and `<!-- /name -->`."""


def filled(page: str, text: str) -> str:
    """The page's text with its tables as they should be.

    Raises `ValueError` if a marker is not there exactly once.
    """
    for name, table in TABLES[page].items():
        between = re.compile(rf"(<!-- {name} -->\n).*?(<!-- /{name} -->)", re.S)
        text, count = between.subn(lambda m, t=table: f"{m[1]}\n{t()}\n\n{m[2]}", text)
        if count != 1:
            raise ValueError(
                f"docs/{page} needs <!-- {name} --> and <!-- /{name} -->, each on a line of its "
                f"own, once; found {count} times."
            )
    return text


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing, fail if out of date")
    check = parser.parse_args().check
    old = {page: (DOCS / page).read_text() for page in TABLES}
    new = {page: filled(page, text) for page, text in old.items()}
    stale = [page for page in TABLES if new[page] != old[page]]
    if check and stale:
        raise SystemExit(f"Out of date: {', '.join(stale)}. Run python docs/tables.py.")
    for page in stale:
        (DOCS / page).write_text(new[page])


if __name__ == "__main__":
    main()
