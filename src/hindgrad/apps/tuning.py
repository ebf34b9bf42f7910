"""`hindgrad.tune` as the commands use it."""

from typing import Any

import hindgrad as hg
from hindgrad.apps.settings import ArgumentError
from hindgrad.apps.work import os_error_code
from hindgrad.tuning.tune import TuneResult


def tune(*arguments: Any, **options: Any) -> TuneResult:
    """`hindgrad.tune`, to the last step and without a diagnosis of the answer unless asked for.

    Raises `ArgumentError` where that says that it cannot begin or go on, such as from a start
    whose training diverges.
    """
    try:
        return hg.tune(*arguments, **{"patience": None, "diagnose": False} | options)
    except ValueError as error:
        if os_error_code(error) is not None:
            raise
        raise ArgumentError(" ".join(str(error).split())) from error
