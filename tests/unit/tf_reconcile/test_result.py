from tf_reconcile.result import Failure, Held, PassReport, Plan, merge_held


def test_a_plan_without_actions_is_empty_even_if_something_is_held() -> None:
    assert Plan[str](held=(Held(subject="a", reason="b"),)).is_empty
    assert not Plan(actions=("do",)).is_empty


def test_a_pass_is_in_sync_when_nothing_failed_is_held_or_missing_and_none_has_to_follow_at_once() -> None:
    assert PassReport().is_in_sync
    assert PassReport(done=("x",), look_again_s=30.0).is_in_sync, "what it changed is right now"
    assert not PassReport(done=("x",), look_again_s=0.0).is_in_sync
    assert not PassReport(failed=(Failure(subject="x", reason="y"),)).is_in_sync
    assert not PassReport(held=(Held(subject="x", reason="y"),)).is_in_sync
    assert not PassReport(missing_sources=("TF",)).is_in_sync


def test_a_pass_is_quiet_when_it_found_everything_right() -> None:
    assert PassReport().is_quiet
    assert not PassReport(done=("x",)).is_quiet
    assert not PassReport(missing_sources=("TF",)).is_quiet


def test_held_work_of_several_groups_is_merged_without_repeats_in_order() -> None:
    one, two = Held(subject="1", reason="r"), Held(subject="2", reason="r")

    assert merge_held([two], [one, two]) == (one, two)
