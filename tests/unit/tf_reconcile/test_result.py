from tf_reconcile.result import Failure, Held, PassReport, Plan, merge_held


def test_a_plan_without_actions_is_empty_even_if_something_is_held() -> None:
    assert Plan[str](held=(Held(subject="a", reason="b"),)).is_empty
    assert not Plan(actions=("do",)).is_empty


def test_a_pass_is_in_sync_only_when_nothing_was_changed_held_failed_or_missing() -> None:
    assert PassReport().is_in_sync
    assert not PassReport(done=("x",)).is_in_sync
    assert not PassReport(failed=(Failure(subject="x", reason="y"),)).is_in_sync
    assert not PassReport(held=(Held(subject="x", reason="y"),)).is_in_sync
    assert not PassReport(missing_sources=("TF",)).is_in_sync


def test_held_work_of_several_groups_is_merged_without_repeats_in_order() -> None:
    one, two = Held(subject="1", reason="r"), Held(subject="2", reason="r")

    assert merge_held([two], [one, two]) == (one, two)
