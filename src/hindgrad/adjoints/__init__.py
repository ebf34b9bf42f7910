"""Adjoints: where the backward pass gets the past states from."""

from hindgrad.adjoints.base import Adjoint as Adjoint
from hindgrad.adjoints.base import Hypergradient as Hypergradient
from hindgrad.adjoints.checkpointed import Checkpointed as Checkpointed
from hindgrad.adjoints.evolution import Evolution as Evolution
from hindgrad.adjoints.forward import Forward as Forward
from hindgrad.adjoints.implicit import Implicit as Implicit
from hindgrad.adjoints.interpolated import Interpolated as Interpolated
from hindgrad.adjoints.persistent import PersistentEvolution as PersistentEvolution
from hindgrad.adjoints.recall import Recall as Recall
from hindgrad.adjoints.reversible.adjoint import Reversible as Reversible
from hindgrad.adjoints.stored import Stored as Stored
from hindgrad.adjoints.truncated import Truncated as Truncated
