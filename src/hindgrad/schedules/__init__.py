"""Schedules: few numbers that say how a rate or a decay changes over a run.

    rate = hg.schedules.Spline(knots=8, steps=1000)
    decay = hg.schedules.Linear(knots=4, steps=1000, range=hg.schedules.Between(0.5, 0.99))
    hyper = {"rate": rate.init({"w": 0.1, "b": 0.2}), "decay": decay.init(0.9)}
    optimizer = hg.Momentum(lambda h, t: rate(h["rate"], t), lambda h, t: decay(h["decay"], t))

A schedule has no numbers of its own: they are hyperparameters, made by `init` or `fit` and tuned
like any others, each in a free scale in which every real number is allowed.
"""

from hindgrad.schedules.base import Schedule as Schedule
from hindgrad.schedules.knots import KnotSchedule as KnotSchedule
from hindgrad.schedules.knots import Linear as Linear
from hindgrad.schedules.knots import Piecewise as Piecewise
from hindgrad.schedules.knots import Spline as Spline
from hindgrad.schedules.ranges import Between as Between
from hindgrad.schedules.ranges import Positive as Positive
from hindgrad.schedules.ranges import Range as Range
from hindgrad.schedules.ranges import Real as Real
from hindgrad.schedules.warmup_cosine import WarmupCosine as WarmupCosine
