"""Hindgrad differentiates through training."""

from typing import TYPE_CHECKING

from hindgrad.lazy import public_names

if TYPE_CHECKING:  # at run time each is loaded when it is first asked for
    from hindgrad import learned as learned
    from hindgrad import schedules as schedules
    from hindgrad.adjoints import Adjoint as Adjoint
    from hindgrad.adjoints import Checkpointed as Checkpointed
    from hindgrad.adjoints import ConjugateGradient as ConjugateGradient
    from hindgrad.adjoints import Evolution as Evolution
    from hindgrad.adjoints import FixedPoint as FixedPoint
    from hindgrad.adjoints import Forward as Forward
    from hindgrad.adjoints import Implicit as Implicit
    from hindgrad.adjoints import Interpolated as Interpolated
    from hindgrad.adjoints import Neumann as Neumann
    from hindgrad.adjoints import NormalEquations as NormalEquations
    from hindgrad.adjoints import PersistentEvolution as PersistentEvolution
    from hindgrad.adjoints import Raise as Raise
    from hindgrad.adjoints import Recall as Recall
    from hindgrad.adjoints import Report as Report
    from hindgrad.adjoints import Reversible as Reversible
    from hindgrad.adjoints import Stored as Stored
    from hindgrad.adjoints import Truncated as Truncated
    from hindgrad.adjoints import Warn as Warn
    from hindgrad.batches import Batch as Batch
    from hindgrad.batches import full_batch as full_batch
    from hindgrad.batches import minibatches as minibatches
    from hindgrad.diagnostics.agreement import Agreement as Agreement
    from hindgrad.diagnostics.agreement import Likeness as Likeness
    from hindgrad.diagnostics.agreement import agreement as agreement
    from hindgrad.diagnostics.check import Check as Check
    from hindgrad.diagnostics.check import check as check
    from hindgrad.diagnostics.diagnose import Diagnosis as Diagnosis
    from hindgrad.diagnostics.diagnose import diagnose as diagnose
    from hindgrad.diagnostics.foresight import Foresight as Foresight
    from hindgrad.diagnostics.growth import Growth as Growth
    from hindgrad.diagnostics.precision import LeafPrecision as LeafPrecision
    from hindgrad.diagnostics.precision import Precision as Precision
    from hindgrad.diagnostics.precision import precision as precision
    from hindgrad.objective import Objective as Objective
    from hindgrad.optimizers import Adam as Adam
    from hindgrad.optimizers import Add as Add
    from hindgrad.optimizers import Coupled as Coupled
    from hindgrad.optimizers import Damped as Damped
    from hindgrad.optimizers import Decoupled as Decoupled
    from hindgrad.optimizers import HeavyBall as HeavyBall
    from hindgrad.optimizers import Keep as Keep
    from hindgrad.optimizers import Lose as Lose
    from hindgrad.optimizers import Momentum as Momentum
    from hindgrad.optimizers import Moves as Moves
    from hindgrad.optimizers import MovingOptimizer as MovingOptimizer
    from hindgrad.optimizers import Nesterov as Nesterov
    from hindgrad.optimizers import Optimizer as Optimizer
    from hindgrad.optimizers import PositionFirst as PositionFirst
    from hindgrad.optimizers import Scale as Scale
    from hindgrad.optimizers import from_optax as from_optax
    from hindgrad.training import Run as Run
    from hindgrad.training import Training as Training
    from hindgrad.training import unroll as unroll
    from hindgrad.tuning.constraints import Box as Box
    from hindgrad.tuning.constraints import L1Ball as L1Ball
    from hindgrad.tuning.constraints import NonNegative as NonNegative
    from hindgrad.tuning.constraints import Simplex as Simplex
    from hindgrad.tuning.constraints import Symmetric as Symmetric
    from hindgrad.tuning.horizons import Carried as Carried
    from hindgrad.tuning.horizons import Forgotten as Forgotten
    from hindgrad.tuning.horizons import Horizon as Horizon
    from hindgrad.tuning.horizons import LastWindow as LastWindow
    from hindgrad.tuning.horizons import Restarted as Restarted
    from hindgrad.tuning.online import OnlineResult as OnlineResult
    from hindgrad.tuning.online import Trajectory as Trajectory
    from hindgrad.tuning.online import tune_online as tune_online
    from hindgrad.tuning.self_tuning import SelfTuningState as SelfTuningState
    from hindgrad.tuning.self_tuning import self_tuning as self_tuning
    from hindgrad.tuning.state import Record as Record
    from hindgrad.tuning.tune import TuneResult as TuneResult
    from hindgrad.tuning.tune import tune as tune

__all__, __dir__, __getattr__ = public_names(__name__)
