"""How a change of what is asked reads: as a chance, or in the units of a quantity."""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, final


class Measure(ABC):
    """One asked prediction, and what it becomes when a cause changes."""

    @property
    @abstractmethod
    def helps(self) -> float:
        """1 if what raises the asked number by being removed spoke for the prediction that is
        explained, −1 if against."""

    @property
    @abstractmethod
    def name(self) -> str:
        """What the measure is of."""

    @abstractmethod
    def becomes(self, change: float) -> float:
        """The measure after a change of the asked number."""

    @abstractmethod
    def shown(self, value: float) -> str:
        """A value in words."""

    @property
    @abstractmethod
    def unit(self) -> tuple[float, str]:
        """By how much differences are multiplied, and in what they are then."""

    def difference(self, change: float) -> float:
        """By how much the measure changes, in its unit."""
        return self.unit[0] * (self.becomes(change) - self.becomes(0.0))

    def after(self, change: float) -> str:
        """The measure after a change, and by how much it has changed."""
        return f"{self.shown(self.becomes(change))} ({signed(self.difference(change))})"


@final
@dataclass(frozen=True)
class Chance(Measure):
    """The probability of a class, of which the asked number is the loss."""

    loss: float
    label: str

    @property
    def helps(self) -> float:
        return 1.0

    @property
    def name(self) -> str:
        return f"chance of '{self.label}'"

    @property
    def unit(self) -> tuple[float, str]:
        return 100.0, "points"

    def becomes(self, change: float) -> float:
        return math.exp(-max(0.0, self.loss + change))

    def shown(self, value: float) -> str:
        return percent(value)


@final
@dataclass(frozen=True)
class Amount(Measure):
    """A quantity, of which the asked number is the network's answer, standardised."""

    answer: float
    """In its own units."""
    scale: float
    """The standard deviation, in them."""
    label: str
    right: float | None
    """If it is known."""

    @property
    def helps(self) -> float:
        if self.right is None:  # what pushes it up is told from what pushes it down
            return -1.0
        return 1.0 if self.answer >= self.right else -1.0

    @property
    def name(self) -> str:
        return f"predicted '{self.label}'"

    @property
    def unit(self) -> tuple[float, str]:
        return 1.0, f"'{self.label}'"

    def becomes(self, change: float) -> float:
        return self.answer + self.scale * change

    def shown(self, value: float) -> str:
        return number(value)


def measure_of(query: dict[str, Any], data: dict[str, Any]) -> Measure:
    """The measure of one of the results' queries."""
    if data["kind"] == "classification":
        return Chance(query["value"], data["classes"][query["explained"]])
    return Amount(query["answer"], data["scale"], data["label"], query["right"])


def percent(p: float) -> str:
    """A probability, with as many digits as tell it from 0 and 1."""
    rest = 100 * min(p, 1 - p)
    digits = 6 if rest <= 0 else max(1, min(6, 1 - math.floor(math.log10(rest))))
    return f"{100 * p:.{1 if rest <= 0 else digits}f} %"


def number(x: float) -> str:
    """A number, in five digits."""
    text = f"{x:,.5g}"
    return f"{x:,.0f}" if "e+" in text and abs(x) < 1e15 else text.replace("-", "−")


def signed(x: float) -> str:
    """A difference, in two digits or all before the point."""
    text = f"{x:+,.2g}" if abs(x) < 100 else f"{x:+,.0f}"
    return text.replace("-", "−").replace("e−0", "e−")
