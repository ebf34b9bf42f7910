"""Derivative rules in a program that need not be the derivative."""

from pathlib import Path
from typing import Any

import jax

from hindgrad.jaxprs import equations

WITH_RULES = {
    "custom_jvp_call",
    "custom_vjp_call",
    "custom_vjp_call_jaxpr",
    "custom_transpose_call",
    "linear_call",
}
"""The primitives that carry a derivative or a transpose written by hand."""
_JAX = Path(jax.__file__).parent
_WRAPPERS = _JAX / "_src" / "custom_derivatives.py"
_OURS = Path(__file__).with_name("shards.py")
"""Sums that round in another order, whose rules are derivatives."""


def own_rules(jaxpr: Any) -> list[str]:
    """The names of the functions in a jaxpr that have a derivative rule from outside of JAX.

    Such a rule may clip, pass through or reverse: then the "gradient" that it makes has no
    symmetric Jacobian. JAX's own (of `relu`, `softmax`, …) are derivatives, and so are sums over
    shards.
    """
    found = []
    for equation in equations(jaxpr):
        if equation.primitive.name not in WITH_RULES:
            continue
        inner = equation.params.get("call_jaxpr") or equation.params.get("fun_jaxpr")
        source = getattr(getattr(inner, "jaxpr", inner), "debug_info", None)
        name, _, place = str(getattr(source, "func_src_info", "")).partition(" at ")
        file = Path(place.rpartition(":")[0] or "unknown")
        is_derivative = file == _OURS or (_JAX in file.parents and file != _WRAPPERS)
        if not is_derivative:
            found.append(name or equation.primitive.name)
    return found
