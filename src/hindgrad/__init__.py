"""Hindgrad differentiates through training."""

from typing import TYPE_CHECKING

from hindgrad.lazy import public_names

if TYPE_CHECKING:  # at run time each is loaded when it is first asked for
    from hindgrad import apps as apps
    from hindgrad import learned as learned
    from hindgrad import schedules as schedules
    from hindgrad.adjoints import Adjoint as Adjoint
    from hindgrad.adjoints import Checkpointed as Checkpointed
    from hindgrad.adjoints import Evolution as Evolution
    from hindgrad.adjoints import Forward as Forward
    from hindgrad.adjoints import Hypergradient as Hypergradient
    from hindgrad.adjoints import Implicit as Implicit
    from hindgrad.adjoints import Interpolated as Interpolated
    from hindgrad.adjoints import PersistentEvolution as PersistentEvolution
    from hindgrad.adjoints import Recall as Recall
    from hindgrad.adjoints import Reversible as Reversible
    from hindgrad.adjoints import Stored as Stored
    from hindgrad.adjoints import Truncated as Truncated
    from hindgrad.adjoints import failures as failures
    from hindgrad.adjoints import solvers as solvers
    from hindgrad.attribution.attribute import Attribution as Attribution
    from hindgrad.attribution.attribute import attribute as attribute
    from hindgrad.attribution.certificate import Certificate as Certificate
    from hindgrad.batches import full_batch as full_batch
    from hindgrad.batches import minibatches as minibatches
    from hindgrad.cross_entropy import blocked_cross_entropy as blocked_cross_entropy
    from hindgrad.diagnostics.agreement import agreement as agreement
    from hindgrad.diagnostics.check import check as check
    from hindgrad.diagnostics.diagnose import diagnose as diagnose
    from hindgrad.diagnostics.precision import precision as precision
    from hindgrad.dynamics import Dynamics as Dynamics
    from hindgrad.jacobians import Jacobian as Jacobian
    from hindgrad.jacobians import jacobian as jacobian
    from hindgrad.objective import Objective as Objective
    from hindgrad.objective import Reparametrised as Reparametrised
    from hindgrad.objective import RunScore as RunScore
    from hindgrad.optimizers import Adam as Adam
    from hindgrad.optimizers import Averaged as Averaged
    from hindgrad.optimizers import ClipByGlobalNorm as ClipByGlobalNorm
    from hindgrad.optimizers import ClipByValue as ClipByValue
    from hindgrad.optimizers import Coupled as Coupled
    from hindgrad.optimizers import Damped as Damped
    from hindgrad.optimizers import Decoupled as Decoupled
    from hindgrad.optimizers import HeavyBall as HeavyBall
    from hindgrad.optimizers import Momentum as Momentum
    from hindgrad.optimizers import Nesterov as Nesterov
    from hindgrad.optimizers import Optimizer as Optimizer
    from hindgrad.optimizers import PositionFirst as PositionFirst
    from hindgrad.optimizers import from_optax as from_optax
    from hindgrad.optimizers import moves as moves
    from hindgrad.segments.hypergradient import hypergradient as hypergradient
    from hindgrad.streams.stream import recorded as recorded
    from hindgrad.streams.stream import stream as stream
    from hindgrad.training import Run as Run
    from hindgrad.training import Training as Training
    from hindgrad.training import unroll as unroll
    from hindgrad.tuning import constraints as constraints
    from hindgrad.tuning import horizons as horizons
    from hindgrad.tuning.online import tune_online as tune_online
    from hindgrad.tuning.self_tuning import self_tuning as self_tuning
    from hindgrad.tuning.tune import tune as tune

__all__, __dir__, __getattr__ = public_names(__name__)
