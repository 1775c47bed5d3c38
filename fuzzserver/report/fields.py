"""Fields of JSON from outside: each is what it must be, or InputError names it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from fuzzserver.errors import InputError
from fuzzserver.report.model import MAX_COUNT, MAX_SECONDS

__all__ = ["Fields", "real_number", "whole_number"]

Item = TypeVar("Item")


class Fields:
    """The fields of a JSON object. InputError names the one that is missing or has no such value."""

    def __init__(self, value: object, place: str) -> None:
        if not isinstance(value, dict):
            raise InputError(f"'{place}' is no JSON object" if place else "it is no JSON object")
        self._value = value
        self.place = place

    def name(self, name: str) -> str:
        """What a field is called in errors: ``targets[0].runs``."""
        return f"{self.place}.{name}" if self.place else name

    def value(self, name: str) -> object:
        """Whatever it is."""
        if name not in self._value:
            raise InputError(f"'{self.name(name)}' is missing")
        return self._value[name]

    def value_or(self, name: str, default: object) -> object:
        """Whatever it is; ``default`` if it is missing, as in reports of earlier versions."""
        return self._value.get(name, default)

    def text(self, name: str) -> str:
        """A text."""
        value = self.value(name)
        if not isinstance(value, str):
            raise InputError(f"'{self.name(name)}' is no text")
        return value

    def number(self, name: str) -> int:
        """A number of something."""
        return whole_number(self.value(name), self.name(name))

    def real(self, name: str) -> float:
        """A time, in seconds."""
        return real_number(self.value(name), self.name(name))

    def items(self, name: str) -> list[Any]:
        """A list of whatever it is."""
        value = self.value(name)
        if not isinstance(value, list):
            raise InputError(f"'{self.name(name)}' is no list")
        return value

    def rows(self, name: str, length: int) -> list[list[Any]]:
        """A list of lists of this length."""
        rows = self.items(name)
        for index, row in enumerate(rows):
            if not isinstance(row, list) or len(row) != length:
                raise InputError(f"'{self.name(name)}[{index}]' is no list of {length} values")
        return rows

    def texts(self, name: str) -> tuple[str, ...]:
        """A list of texts."""
        values = self.items(name)
        if not all(isinstance(each, str) for each in values):
            raise InputError(f"'{self.name(name)}' holds something else than texts")
        return tuple(values)

    def object(self, name: str) -> Fields:
        """An object in this one."""
        return Fields(self.value(name), self.name(name))

    def objects(self, name: str) -> Iterator[Fields]:
        """A list of objects."""
        for index, item in enumerate(self.items(name)):
            yield Fields(item, f"{self.name(name)}[{index}]")

    def maybe(self, name: str, read: Callable[[str], Item]) -> Item | None:
        """What ``read`` makes of a field that may be null."""
        return None if self.value(name) is None else read(name)

    def expect(self, name: str, number: int) -> None:
        """A number that must fit what it counts."""
        value = self.number(name)
        if value != number:
            raise InputError(f"'{self.name(name)}' is {value}, but what it counts is {number}")


def whole_number(value: object, name: str) -> int:
    """``value`` as a number of something; ``name`` is what it is called in errors."""
    if type(value) is not int or not 0 <= value <= MAX_COUNT:
        raise InputError(f"'{name}' is no whole number from 0 to 2^53")
    return value


def real_number(value: object, name: str) -> float:
    """``value`` as a time, in seconds; ``name`` is what it is called in errors."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) <= MAX_SECONDS:
        raise InputError(f"'{name}' is no number from -10^15 to 10^15")
    return float(value)
