from __future__ import annotations

import copy
import pickle
from typing import TYPE_CHECKING

import pytest

from initmig.core.events import WaitingForDatabase, WaitingForMigrations
from initmig.core.records import Record

if TYPE_CHECKING:
    from collections.abc import Callable


class Point(Record):
    x: int
    y: int = 0

    def mirrored(self) -> Point:
        return self._replace(x=-self.x)


class Size(Record):
    x: int
    y: int = 0


class Nothing(Record):
    pass


class AlsoNothing(Record):
    pass


class Named(Record):
    name: str
    point: Point


def test_records_of_one_type_with_equal_values_are_equal() -> None:
    assert Point(1, 2) == Point(1, 2)
    assert not Point(1, 2) != Point(1, 2)  # noqa: SIM202
    assert Point(1, 2) != Point(1, 3)
    assert not Point(1, 2) == Point(1, 3)  # noqa: SIM201


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (Point(1, 2), Size(1, 2)),
        (Nothing(), AlsoNothing()),
        (Named("a", Point(1)), Named("a", Size(1))),  # type: ignore[arg-type]
        (WaitingForDatabase("x", 60), WaitingForMigrations("x", 60)),
        (Point(1, 2), (1, 2)),
        (Nothing(), ()),
    ],
)
def test_record_does_not_equal_other_types_with_the_same_values(one: object, other: object) -> None:
    for left, right in ((one, other), (other, one)):
        assert left != right
        assert not left == right  # noqa: SIM201
        assert [left] != [right]


def test_equal_records_are_one_key_and_unequal_records_are_two() -> None:
    assert hash(Point(1, 2)) == hash(Point(1, 2))
    assert {Point(1, 2), Point(1, 2)} == {Point(1, 2)}
    assert len({Point(1, 2), Size(1, 2), (1, 2)}) == 3


@pytest.mark.parametrize(
    "copied",
    [
        copy.copy,
        copy.deepcopy,
        *(
            lambda record, protocol=protocol: pickle.loads(pickle.dumps(record, protocol))
            for protocol in range(pickle.HIGHEST_PROTOCOL + 1)
        ),
    ],
)
def test_copy_is_equal_and_has_the_same_type(copied: Callable[[Named], Named]) -> None:
    record = Named("a", Point(1, 2))
    assert copied(record) == record


def test_replace_returns_a_new_record_of_the_same_type() -> None:
    point = Point(1, 2)
    assert point._replace(y=3) == Point(1, 3)
    assert point.mirrored() == Point(-1, 2)
    assert point == Point(1, 2)


def test_replace_refuses_an_unknown_field() -> None:
    with pytest.raises(TypeError, match="Point cannot take z"):
        Point(1)._replace(z=3)  # type: ignore[call-arg]


def test_representation_shows_the_type_and_the_fields() -> None:
    assert repr(Named("a", Point(1))) == "Named(name='a', point=Point(x=1, y=0))"
    assert repr(Nothing()) == "Nothing()"


def test_fields_are_read_by_name_by_position_and_by_pattern() -> None:
    match Point(1, 2):
        case Size(_, _):
            raise AssertionError
        case Point(x, y):
            assert (x, y) == (1, 2)
    x, y = Point(3, y=4)
    assert (x, y) == (3, 4)
    assert Point(5).y == Point(5)[1] == 0
    assert Point(1, 2)._asdict() == {"x": 1, "y": 2}


def test_field_cannot_be_assigned() -> None:
    with pytest.raises(AttributeError):
        Point(1).x = 2  # type: ignore[misc]


@pytest.mark.parametrize(
    ("values", "named", "message"),
    [
        ((), {}, "Point lacks x"),
        ((), {"y": 1}, "Point lacks x"),
        ((1, 2, 3), {}, "Point has 2 fields"),
        ((1,), {"x": 1}, "Point cannot take x"),
        ((1,), {"z": 1, "a": 1}, "Point cannot take a, z"),
    ],
)
def test_invalid_arguments_are_refused(
    values: tuple[int, ...], named: dict[str, int], message: str
) -> None:
    with pytest.raises(TypeError, match=f"^{message}$"):
        Point(*values, **named)
