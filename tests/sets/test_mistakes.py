"""The words for a mistake in a configuration: the setting, what is wrong, and the values that it may have."""

from __future__ import annotations

import enum
from typing import Literal

import msgspec
import pytest

from sets.mistakes import in_words


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Wheel(msgspec.Struct, forbid_unknown_fields=True):
    colour: Colour = Colour.RED


class Car(msgspec.Struct, forbid_unknown_fields=True):
    wheels: tuple[Wheel, ...] = ()
    spare: Wheel | None = None
    doors: Literal[3, 5] = 5
    owners: dict[str, Literal["whole", "half"]] = {}


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ({"wheels": [{}, {"colour": "green"}]}, "wheels[1].colour: 'green' is none of red, blue"),
        ({"spare": {"colour": 7}}, "spare.colour: expected `str`, got `int`: one of red, blue"),
        ({"doors": 4}, "doors: 4 is none of 3, 5"),
        ({"owners": {"ann": "most"}}, "owners[...]: 'most' is none of half, whole"),
        ({"whels": []}, "there is no setting 'whels'; did you mean 'wheels'?"),
        ({"spare": {"Colour": "red"}}, "spare: there is no setting 'Colour'; did you mean 'colour'?"),
        ({"wheels": 4}, "wheels: expected `array`, got `int`"),
    ],
)
def test_a_mistake_names_the_setting_and_its_values(data: dict[str, object], said: str) -> None:
    with pytest.raises(msgspec.ValidationError) as caught:
        msgspec.convert(data, Car)
    assert in_words(caught.value, Car) == said
