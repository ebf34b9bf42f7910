"""Any optax transformation as an optimizer."""

from hindgrad.optimizers.from_optax.adapter import FromOptax as FromOptax
from hindgrad.optimizers.from_optax.adapter import from_optax as from_optax
