"""Adjoints: where the backward pass gets the past states from."""

from hindgrad.adjoints.base import Adjoint as Adjoint
from hindgrad.adjoints.base import Recall as Recall
from hindgrad.adjoints.checkpointed import Checkpointed as Checkpointed
from hindgrad.adjoints.interpolated import Interpolated as Interpolated
from hindgrad.adjoints.reversible.adjoint import Reversible as Reversible
from hindgrad.adjoints.reversible.failure import Raise as Raise
from hindgrad.adjoints.reversible.failure import Report as Report
from hindgrad.adjoints.stored import Stored as Stored
from hindgrad.adjoints.truncated import Truncated as Truncated
