"""Where the updates of optax have no derivative, and what helps."""

from typing import NamedTuple

from hindgrad.optimizers.from_optax.links import Link

PLACES = {
    "always": "in every step",
    "start": "by the initial parameters",
    "coordinate": "at a coordinate whose gradient is exactly zero (a dead unit, a constant input)",
    "unit": "at a unit whose gradient is exactly zero (a column of a matrix)",
    "array": "at an array whose whole gradient is exactly zero",
    "all": "where all gradients are exactly zero",
}
"""Where a derivative is NaN, in words. From "coordinate" on, each holds those below it."""


class Undefined(NamedTuple):
    """Where the derivative of an update is NaN, and what helps."""

    at: str
    """One of `PLACES`; nowhere if empty."""
    instead: str = "hg.Adam"
    """What to use in its place."""
    setting: str = ""
    """The setting that mends it, if there is one, with a value."""
    left: str = ""
    """Where it is still NaN with that setting."""
    forward: bool = False
    """Whether it is finite if taken forwards."""
    float32: str = ""
    """Where it is NaN in float32, if not at the same place."""

    @property
    def cure(self) -> str:
        """What helps, in words."""
        among = f"{PLACES[self.left]}, " if self.left else ""
        ways = [f"pass {self.setting}"] if self.setting else []
        ways += [f"{among}use {self.instead}"]
        ways += ["differentiate with hg.Forward()"] if self.forward else []
        return ", or ".join(ways)


_CLIP = "a clip by optax.safe_norm (docs/optimizer.md)"

ROWS = {
    """adam adamw amsgrad ademamix simplified_ademamix optimistic_adam optimistic_adam_v2
    scale_by_adam scale_by_adan scale_by_amsgrad scale_by_ademamix
    scale_by_simplified_ademamix""": Undefined("coordinate", setting="eps_root=1e-12"),
    "lamb": Undefined("coordinate", setting="eps_root=1e-12", left="array"),
    "muon": Undefined("coordinate", setting="adam_eps_root=1e-12", left="array"),
    "schedule_free_adamw": Undefined(
        "coordinate", "optax.contrib.schedule_free(optax.adamw(rate, b1=0, eps_root=1e-12), rate)"
    ),
    """adopt scale_by_adopt dadapt_adamw galore scale_by_galore madgrad scale_by_madgrad
    prodigy""": Undefined("coordinate"),
    "adafactor": Undefined("array", float32="coordinate"),
    "scale_by_factored_rms": Undefined("", float32="coordinate"),
    "adaptive_grad_clip": Undefined("unit", _CLIP, forward=True),
    "clip_by_block_rms": Undefined("array", _CLIP),
    "clip_by_global_norm": Undefined("all", _CLIP, forward=True),
    "novograd scale_by_novograd scale_by_muon": Undefined("array"),
    "lars scale_by_trust_ratio": Undefined("array", "hg.Momentum", forward=True),
    "radam scale_by_radam": Undefined("always", forward=True),
    "scale_by_lbfgs": Undefined("all", "hg.Momentum", forward=True),
    "dowg normalize normalize_by_update_norm": Undefined("all", "hg.Momentum"),
    "dog mechanize": Undefined("start", "hg.Momentum"),
    "scale_by_distance_over_gradients": Undefined("", "hg.Momentum", float32="start"),
}
"""What is known of optax 0.2.8; the others have derivatives, with their defaults."""

UNDEFINED = {name: row for names, row in ROWS.items() for name in names.split()}

_WITHIN = {
    "scale_by_muon": {"scale_by_adam": UNDEFINED["muon"]},
    "schedule_free": {"scale_by_rms": UNDEFINED["schedule_free_adamw"]},
}
"""What helps with a part of something that has settings of its own."""

_SILENT = ("chain", "with_extra_args_support", "identity", "masked", "partition", "scale")


def explanation(parts: list[Link]) -> str:
    """What is said when the derivative of an update of these parts is not finite."""
    begin = "The derivative of the optax update is not finite, though the run is"
    names = [part.name for part in parts]
    known = UNDEFINED | {k: v for name in names for k, v in _WITHIN.get(name, {}).items()}
    rows = {part.name: _undefined(part, known) for part in parts}
    reasons = [
        f"that of {name} is NaN {PLACES[row.float32 or row.at]}: {row.cure}"
        for name, row in rows.items()
        if row is not None
    ]
    if reasons:
        return f"{begin}: {'; '.join(reasons)}."
    suspects = ", ".join(dict.fromkeys(n for n in names if n not in _SILENT)) or "its parts"
    return (
        f"{begin}: one of {suspects} has no derivative there, perhaps since a gradient is exactly "
        "zero. Use hg.Adam, hg.Momentum, or an update that has one."
    )


def _undefined(part: Link, known: dict[str, Undefined]) -> Undefined | None:
    row = known.get(part.name) or known.get(part.name.removeprefix("scale_by_"))
    if row is None or not row.setting:
        return row
    value = part.settings.get(row.setting.partition("=")[0].removeprefix("adam_"), 0)
    return row if isinstance(value, (int, float)) and value == 0 else None
