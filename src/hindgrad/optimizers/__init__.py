"""Optimizers as explicit functions of the hyperparameters."""

from hindgrad.optimizers.adam import Adam as Adam
from hindgrad.optimizers.averaged import Averaged as Averaged
from hindgrad.optimizers.base import Optimizer as Optimizer
from hindgrad.optimizers.clipping import ClipByGlobalNorm as ClipByGlobalNorm
from hindgrad.optimizers.clipping import ClipByValue as ClipByValue
from hindgrad.optimizers.from_optax import from_optax as from_optax
from hindgrad.optimizers.momentum import Damped as Damped
from hindgrad.optimizers.momentum import HeavyBall as HeavyBall
from hindgrad.optimizers.momentum import Momentum as Momentum
from hindgrad.optimizers.momentum import Nesterov as Nesterov
from hindgrad.optimizers.momentum import PositionFirst as PositionFirst
from hindgrad.optimizers.moves import Add as Add
from hindgrad.optimizers.moves import Keep as Keep
from hindgrad.optimizers.moves import Lose as Lose
from hindgrad.optimizers.moves import Moves as Moves
from hindgrad.optimizers.moves import MovingOptimizer as MovingOptimizer
from hindgrad.optimizers.moves import Scale as Scale
from hindgrad.optimizers.weight_decay import Coupled as Coupled
from hindgrad.optimizers.weight_decay import Decoupled as Decoupled
