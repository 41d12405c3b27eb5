from tf_reconcile.diff import Create, Delete, Update, diff


def test_equal_worlds_have_no_difference() -> None:
    assert diff(want={1: "a", 2: "b"}, have={2: "b", 1: "a"}) == []


def test_a_missing_key_is_created_a_surplus_key_deleted_and_a_wrong_value_updated() -> None:
    changes = diff(want={"new": 1, "wrong": 2, "right": 3}, have={"wrong": 9, "right": 3, "old": 4})

    assert changes == [
        Delete(key="old", have=4),
        Update(key="wrong", want=2, have=9),
        Create(key="new", want=1),
    ]


def test_changes_of_one_kind_are_ordered_by_key() -> None:
    assert diff(want={"b": 0, "a": 0, "c": 0}, have={}) == [Create(key=key, want=0) for key in "abc"]
