"""Hindgrad differentiates through training."""

from hindgrad.adjoints import Adjoint as Adjoint
from hindgrad.adjoints import Checkpointed as Checkpointed
from hindgrad.adjoints import Recall as Recall
from hindgrad.adjoints import Stored as Stored
from hindgrad.adjoints import Truncated as Truncated
from hindgrad.objective import Objective as Objective
from hindgrad.optimizers import Adam as Adam
from hindgrad.optimizers import Coupled as Coupled
from hindgrad.optimizers import Damped as Damped
from hindgrad.optimizers import Decoupled as Decoupled
from hindgrad.optimizers import HeavyBall as HeavyBall
from hindgrad.optimizers import Momentum as Momentum
from hindgrad.optimizers import Nesterov as Nesterov
from hindgrad.optimizers import Optimizer as Optimizer
from hindgrad.optimizers import PositionFirst as PositionFirst
from hindgrad.optimizers import from_optax as from_optax
from hindgrad.training import Run as Run
from hindgrad.training import Training as Training
from hindgrad.training import unroll as unroll
