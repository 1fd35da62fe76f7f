"""Classes find each other by name, or it is said which don't."""

from __future__ import annotations

import numpy as np
import pytest

from segcam.classes import CAMVID, CITYSCAPES, ClassTable, generic_table
from segcam.errors import UsageError
from segcam.evaluation.mapping import without_void
from segcam.evaluation.matching import columns_of, common_table, is_numbered, own_columns


def table(*names: str, void: tuple[int, ...] = ()) -> ClassTable:
    return ClassTable(names, tuple((i, i, i) for i in range(len(names))), frozenset(void))


def test_by_name_in_any_order_and_spelling() -> None:
    found = columns_of(table("Traffic-Light", "car", "mud", "road"), table("road", "traffic light", "car"), {}, "net")
    assert found[:4].tolist() == [1, 2, 3, 0]
    assert (found[4:] == 3).all(), "what the labels don't have is no class, and so is an id beyond the table"


def test_void_is_never_a_class() -> None:
    found = columns_of(CAMVID, without_void(CAMVID), {}, "net")
    assert found[:12].tolist() == [*range(11), 11]
    named_alike = columns_of(table("road", "car", "road", void=(0,)), table("road", "car"), {}, "net")
    assert named_alike[:3].tolist() == [2, 1, 0]


def test_renamed_classes_go_first_and_may_meet() -> None:
    labels = table("street", "vehicle")
    found = columns_of(
        table("road", "car", "truck", "sky"), labels, {"road": "street", "car": "vehicle", "truck": "vehicle"}, "net"
    )
    assert found[:4].tolist() == [0, 1, 1, 2]
    swapped = columns_of(table("a", "b"), table("a", "b"), {"a": "b", "b": "a"}, "net")
    assert swapped[:2].tolist() == [1, 0]


def test_what_the_network_lacks_is_an_error() -> None:
    with pytest.raises(UsageError) as caught:
        columns_of(CITYSCAPES, without_void(CAMVID), {}, "net.onnx")
    assert "net.onnx has no class for pavement, tree, sign_symbol, pedestrian, bicyclist" in caught.value.message
    assert "[network]" in caught.value.hint
    with pytest.raises(UsageError, match="no class is called 'rode'"):
        columns_of(CITYSCAPES, table("road"), {"rode": "road"}, "net")
    with pytest.raises(UsageError, match="no class is called 'rood'"):
        columns_of(CITYSCAPES, table("road"), {"road": "rood"}, "net")


def test_numbered_classes_count_where_both_have_as_many() -> None:
    assert columns_of(generic_table(19), CITYSCAPES, {}, "net")[:20].tolist() == list(range(20))
    with pytest.raises(UsageError, match="net has 12 classes and the labels have 19"):
        columns_of(generic_table(12), CITYSCAPES, {}, "net")
    assert is_numbered(generic_table(3))
    assert not is_numbered(CITYSCAPES)


def test_own_classes() -> None:
    found = own_columns(table("a", "nothing", "b", "b", void=(1,)))
    assert found[:5].tolist() == [0, 3, 1, 2, 3]


def test_two_networks() -> None:
    first, second = table("road", "void", "car", void=(1,)), table("bus", "car", "road", "other", void=(3,))
    both, rows, columns = common_table(first, second, "--against")
    assert both.names == ("road", "car", "bus")
    assert rows[:4].tolist() == [0, 3, 1, 3]
    assert columns[:5].tolist() == [2, 1, 0, 3, 3]


def test_two_networks_of_which_one_has_no_names() -> None:
    for first, second in ((CITYSCAPES, generic_table(19)), (generic_table(19), CITYSCAPES)):
        both, rows, columns = common_table(first, second, "--against")
        assert both.names == CITYSCAPES.names
        assert np.array_equal(rows, columns)
    with pytest.raises(UsageError, match="not both have names"):
        common_table(CITYSCAPES, generic_table(20), "--against")


def test_two_networks_with_nothing_in_common() -> None:
    with pytest.raises(UsageError, match="no class in common"):
        common_table(table("a"), table("b"), "--against")
