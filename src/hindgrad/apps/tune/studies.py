"""The trials of a run, where Optuna's dashboard and other machines can see them."""

import warnings
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState, create_trial

from hindgrad.apps.settings import ArgumentError
from hindgrad.tuning.state import Record

STEP = "step"
"""The attribute by which a step of a tuning is known."""


class Studies:
    """Studies in an Optuna storage: a database (`sqlite:///runs.db`, or another URL of SQLAlchemy),
    a journal file (a path), or a proxy (`grpc://host:port`); in memory if None is given.

    Raises `ArgumentError` if the storage cannot be opened.
    """

    def __init__(self, storage: str | None):
        self._name, self.storage = storage, _opened(storage)

    def begin(self, name: str, sampler: optuna.samplers.BaseSampler | None = None) -> optuna.Study:
        """A study of that name, without trials: those of an earlier attempt are deleted."""
        return self._study(name, sampler, anew=True)

    def recorder(
        self, name: str, params: Callable[[Any], Mapping[str, float]], space: dict, *, anew: bool
    ) -> Callable[[Record, Any], None]:
        """What `hindgrad.tune` calls after each step, to enter it as a trial; once, also if the
        tuning is interrupted and goes on. `params` are the coordinates, in `space`, of the
        hyperparameters that it is called with."""
        if self.storage is None:
            return lambda *_: None
        study = self._study(name, None, anew=anew)
        entered = {trial.user_attrs.get(STEP) for trial in study.get_trials(deepcopy=False)}

        def enter(record: Record, hyper: Any) -> None:
            if record.step in entered:
                return
            entered.add(record.step)
            attributes = {STEP: record.step, "norm": record.norm, "status": record.status}
            fine = np.isfinite(record.value)
            study.add_trial(
                create_trial(
                    state=TrialState.COMPLETE if fine else TrialState.FAIL,
                    value=float(np.exp(record.value)) if fine else None,
                    params=dict(params(hyper)),
                    distributions=space,
                    user_attrs=attributes,
                )
            )

        return enter

    def _study(self, name, sampler, *, anew):
        try:
            with _quiet():
                if anew and self.storage is not None:
                    with suppress(KeyError):
                        optuna.delete_study(study_name=name, storage=self.storage)
                return optuna.create_study(
                    storage=self.storage, study_name=name, sampler=sampler, load_if_exists=True
                )
        except Exception as error:  # of the database's own driver
            raise _refused(self._name, error) from error


def quiet_study(sampler: Callable[[], optuna.samplers.BaseSampler]) -> optuna.Study:
    """A study in memory, without Optuna's notes and warnings."""
    with _quiet():
        return optuna.create_study(sampler=sampler())


def distributions(limits: Mapping[str, tuple[float, float]]) -> dict[str, BaseDistribution]:
    """Numbers within these limits."""
    return {name: optuna.distributions.FloatDistribution(*pair) for name, pair in limits.items()}


def _quiet() -> Any:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return warnings.catch_warnings(action="ignore", category=optuna.exceptions.ExperimentalWarning)


def _opened(storage: str | None) -> optuna.storages.BaseStorage | None:
    if storage is None:
        return None
    try:
        with _quiet():
            if storage.startswith("grpc://"):
                host, _, port = storage.removeprefix("grpc://").rpartition(":")
                return optuna.storages.GrpcStorageProxy(host=host, port=int(port))
            if "://" in storage:
                return optuna.storages.get_storage(storage)
            return optuna.storages.JournalStorage(JournalFileBackend(storage))
    except Exception as error:  # of the database's own driver
        raise _refused(storage, error) from error


def _refused(storage: str | None, error: Exception) -> ArgumentError:
    reason = (str(error).splitlines() or [type(error).__name__])[0]
    return ArgumentError(
        f"--storage {storage} cannot be opened ({reason}); give a database (sqlite:///runs.db), a "
        "journal file (runs.log), or grpc://host:port."
    )
