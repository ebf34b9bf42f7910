"""Where the updates of optax have no derivative, and what helps."""

from typing import NamedTuple

from hindgrad.optimizers.from_optax.links import Link

PLACES = {
    "always": "in every step",
    "coordinate": "at a coordinate whose gradient is exactly zero (a dead unit, a constant input)",
    "unit": "at a unit whose gradient is exactly zero (a column of a matrix)",
    "array": "at an array whose whole gradient is exactly zero",
    "all": "where all gradients are exactly zero",
}
"""Where a derivative is NaN, in words; each place holds those below it."""

WRAPPERS = ("chain", "with_extra_args_support")
"""Parts that do nothing themselves."""

CLIP = "a clip by optax.safe_norm (docs/optimizer.md)"


class Undefined(NamedTuple):
    """Where the derivative of an update is NaN, and what helps."""

    at: str
    """One of `PLACES`."""
    instead: str = "hg.Adam"
    """What to use in its place."""
    setting: str = ""
    """The setting that mends it, if there is one, and a value for it."""
    left: str = ""
    """Where the derivative is still NaN with it; nowhere if empty."""
    float32: str = ""
    """Where it is NaN in float32, if not at the same place."""

    @property
    def cure(self) -> str:
        """What helps, in words."""
        if not self.setting:
            return f"use {self.instead}"
        if not self.left:
            return f"pass {self.setting}, or use {self.instead}"
        return f"pass {self.setting}, or, {PLACES[self.left]}, use {self.instead}"


_EPS_ROOT = Undefined("coordinate", setting="eps_root=1e-12")
_NO_SETTING = Undefined("coordinate")

UNDEFINED = {
    "adafactor": Undefined("array", float32="coordinate"),
    "adam": _EPS_ROOT,
    "adamw": _EPS_ROOT,
    "adaptive_grad_clip": Undefined("unit", instead=CLIP),
    "ademamix": _EPS_ROOT,
    "adopt": _NO_SETTING,
    "amsgrad": _EPS_ROOT,
    "clip_by_block_rms": Undefined("array", instead=CLIP),
    "clip_by_global_norm": Undefined("all", instead=CLIP),
}


def told(parts: list[Link]) -> str:
    """What is said when the derivative of an update of these parts is not finite."""
    begin = "The derivative of the optax update is not finite, though the run is"
    faulty = [(part, _undefined(part)) for part in parts]
    reasons = [f"that of {part.name} is NaN {PLACES[u.at]}: {u.cure}" for part, u in faulty if u]
    if not reasons:
        names = ", ".join(part.name for part in parts if part.name not in WRAPPERS)
        return (
            f"{begin}: one of {names} has no derivative there, perhaps since a gradient is exactly "
            "zero. Use hg.Adam or hg.Momentum, or an update that has one."
        )
    return f"{begin}: {'; '.join(dict.fromkeys(reasons))}."


def _undefined(part: Link) -> Undefined | None:
    found = UNDEFINED.get(part.name) or UNDEFINED.get(part.name.removeprefix("scale_by_"))
    if found is None or not found.setting:
        return found
    value = part.settings.get(found.setting.partition("=")[0], 0)
    if isinstance(value, (int, float)) and value == 0:
        return found
    return found._replace(at=found.left, setting="") if found.left else None
