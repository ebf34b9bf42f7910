"""The certificate in words for people with a table."""

from collections.abc import Iterator, Mapping
from typing import Any

from hindgrad.apps.tables.words import counted, listed
from hindgrad.attribution.certificate import BEYOND, FAINT, Certificate
from hindgrad.diagnostics.diagnose import ROUGH
from hindgrad.diagnostics.precision import TRUSTED

HEADS = {
    "certified": "Certified: these explanations foretell what happens when rows are left out.",
    "undecided": "Undecided: these explanations may foretell what happens when rows are left out.",
    "not to be trusted": "Not to be trusted: these explanations do not foretell well enough what "
    "happens when rows are left out.",
}

CALMER = (
    "tune it first (hindgrad tune) and give its folder by --from, or give fewer --steps, or a "
    "smaller network by --hidden"
)
CALMER_THAN_TUNED = (
    "give fewer --steps, or tune a smaller network (hindgrad tune --hidden), or explain one with "
    "default settings, without --from"
)


def dump(certificate: Certificate) -> dict[str, Any]:
    """A certificate as results hold it."""
    precision = certificate.precision
    top = list(certificate.top.values())
    return {
        "verdict": certificate.verdict,
        "lds": [certificate.lds.get(i) for i in range(_queries(certificate))],
        "mean": certificate.mean,
        "interval": None if certificate.interval is None else list(certificate.interval),
        "bar": certificate.bar,
        "runs": certificate.runs,
        "dropped": certificate.dropped,
        "rows": certificate.examples,
        "unmoved": certificate.unmoved,
        "unscored": certificate.unscored,
        "diverged": certificate.diverged,
        "ratio": certificate.ratio,
        "faintness": certificate.faintness,
        "metasmoothness": certificate.metasmoothness,
        "digits": None if precision is None else precision.digits,
        "top": len(top),
        "beaten": sum(removal.beats_random for removal in top),
    }


def _queries(certificate):
    return len(certificate.lds) + len(certificate.unmoved)


def lines(certificate: Mapping[str, Any], names: list[str], *, tuned: bool) -> list[str]:
    """What was done, what came out, and what helps if it is not good; that depends on whether the
    settings were tuned."""
    found = [
        f"The network was trained again {certificate['runs']} times, each time without "
        f"{certificate['dropped']:,} of its {certificate['rows']:,} training rows, drawn at "
        "random, and with everything else as it was."
    ]
    if certificate["interval"] is not None:
        low, high = certificate["interval"]
        found.append(
            "What the explanations foretold for the predictions agrees with what happened by a "
            f"rank correlation of {certificate['mean']:.3f} (1 is perfect, 0 is chance; "
            f"95 % interval {low:.3f} to {high:.3f}; {certificate['bar']:g} is asked for)."
        )
    if certificate["top"]:
        found.append(
            f"Without the {counted(certificate['dropped'], 'row')} said to matter most, "
            f"{certificate['beaten']} of {certificate['top']} predictions changed by more than "
            "without any of the random ones."
        )
    return [*found, *_reasons(certificate, names, CALMER_THAN_TUNED if tuned else CALMER)]


def _reasons(certificate: Mapping[str, Any], names: list[str], calmer: str) -> Iterator[str]:
    dead = [names[i] for i in certificate["unmoved"] if i not in certificate["unscored"]]
    unscored = [names[i] for i in certificate["unscored"]]
    if unscored:
        yield (
            f"Of {listed(unscored)} this says nothing, as no row was left out that matters to it: "
            "give more --runs, or a larger share by --without."
        )
    if dead:
        yield (
            f"Of {listed(dead)} nothing can be said: whatever is left out, the prediction does not "
            "change. The network is saturated there."
        )
    if certificate["faintness"] is not None and certificate["faintness"] < FAINT:
        yield "Some predictions change in their last digits only, which are rounding."
    yield from _of_training(certificate, calmer, any_yet=bool(unscored or dead))


def _of_training(certificate: Mapping[str, Any], calmer: str, *, any_yet: bool) -> Iterator[str]:
    chaotic = certificate["metasmoothness"] < ROUGH
    rounding = certificate["digits"] is not None and certificate["digits"] < TRUSTED
    ratio = certificate["ratio"]
    beyond = ratio is not None and not 1 / BEYOND <= ratio <= BEYOND
    if certificate["diverged"]:
        yield f"{certificate['diverged']} of the trainings diverged: {calmer}."
    if chaotic:
        yield (
            "The training is chaotic: the smallest change of the data leads to another network, so "
            f"that no row can be said to have decided anything. To change that, {calmer}."
        )
    if rounding:
        yield f"The numbers below are mostly rounding: {calmer}."
    elif beyond and not chaotic:
        yield (
            f"The changes are {ratio:.2g} times as large as foretold: what is below holds for "
            "smaller changes only. Leave out fewer rows (--without), or give fewer --steps."
        )
    if certificate["verdict"] == "undecided":
        yield (
            f"{certificate['runs']} trainings do not decide: give more, "
            f"--runs {4 * certificate['runs']}."
        )
    found = any_yet or certificate["diverged"] or chaotic or rounding or beyond
    if certificate["verdict"] == "not to be trusted" and not found:
        fewer = "leave out fewer rows (--without), or " if certificate["dropped"] > 1 else ""
        yield f"No single cause shows. What may help: {fewer}{calmer}."
