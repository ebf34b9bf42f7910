"""Hyperparameters in a file, in the units that a person would use."""

import json
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from hindgrad.apps.model import DECAYS, RATES, Form, Hyper, Network
from hindgrad.apps.settings import ArgumentError

FORMAT = "hindgrad hyperparameters 2"


def dump_form(form: Form) -> dict[str, Any]:
    """How the rows of rate and decay are to be read."""
    return {"kind": form.name, "knots": form.knots}


def load_form(values: dict[str, Any]) -> Form:
    """The inverse of `dump_form`."""
    return Form(values["kind"], values["knots"])


def to_units(hyper: Hyper) -> dict[str, list]:
    """Rates, decays, weight decays and initial scales themselves, not their logarithms."""
    raw = {name: np.asarray(value, np.float64) for name, value in hyper.items()}
    values = {name: np.exp(value) for name, value in raw.items() if name != "decay"}
    values["decay"] = 1 / (1 + np.exp(-raw["decay"]))
    return {name: values[name].tolist() for name in hyper}


def from_units(values: dict[str, Any]) -> Hyper:
    """The inverse of `to_units`."""
    arrays = {name: np.asarray(value, np.float64) for name, value in values.items()}
    hyper = {name: np.log(value) for name, value in arrays.items() if name != "decay"}
    hyper["decay"] = np.log(arrays["decay"]) - np.log1p(-arrays["decay"])
    return {name: jnp.asarray(hyper[name], jnp.float32) for name in values}


def every_step(hyper: Hyper, network: Network) -> dict[str, np.ndarray]:
    """The same in these units, with the rates and decays of all steps."""
    values = {name: np.array(value) for name, value in to_units(hyper).items()}
    for name, range in (("rate", RATES), ("decay", DECAYS)):
        values[name] = np.asarray(network.schedule(range).values(hyper[name]))
    return values


def read_hyper(path: Path, network: Network) -> Hyper:
    """Reads hyperparameters for a network and its form of schedules.

    Raises `ArgumentError` if the file does not hold such.
    """
    layers = len(network.sizes) - 1
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise ArgumentError(f"--from {path}: {_first_line(error)}") from error
    values = content.get("hyper") if isinstance(content, dict) else None
    if not isinstance(values, dict):
        raise ArgumentError(f"--from {path} does not hold hyperparameters of hindgrad tune.")
    knots = len(values["rate"]) if isinstance(values.get("rate"), list) else 0
    shapes = {
        "rate": (knots, layers),
        "decay": (knots, layers),
        "weight_decay": (layers,),
        "scale": (layers,),
    }
    for name, shape in shapes.items():
        try:
            array = np.asarray(values.get(name), np.float64)
        except (TypeError, ValueError):
            array = np.array(np.nan)
        if array.shape != shape or knots == 0:
            raise ArgumentError(
                f"--from {path}: '{name}' has shape {array.shape}; a network of {layers} layers "
                f"needs {shape}. Give the --hidden it was tuned for."
            )
        high = 1.0 if name == "decay" else np.inf
        if not np.all((array > 0) & (array < high)):
            raise ArgumentError(f"--from {path}: '{name}' has values outside of (0, {high:g}).")
    stated = content.get("schedule")
    kind = stated.get("kind") if isinstance(stated, dict) else "windows"  # as in format 1
    if (kind, knots) != (network.form.name, network.form.knots):
        raise ArgumentError(
            f"--from {path}: its schedules are of another form. Give --schedule {kind} "
            f"--knots {knots}, or leave --from out."
        )
    return from_units({name: values[name] for name in shapes})


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
