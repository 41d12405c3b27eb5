from tf_reconcile.backoff import Backoff, RetryTimes

BACKOFF = Backoff(first_s=1, factor=2, most_s=5)


def test_the_delay_doubles_up_to_its_limit() -> None:
    assert [BACKOFF.delay_s(failures) for failures in range(6)] == [0, 1, 2, 4, 5, 5]


def test_a_thousand_failures_still_have_a_finite_delay() -> None:
    assert BACKOFF.delay_s(100_000) == 5


def test_nothing_is_due_before_something_failed() -> None:
    assert RetryTimes[str](backoff=BACKOFF).next_due_s() is None


def test_a_key_that_keeps_failing_waits_longer_each_time() -> None:
    times = RetryTimes[str](backoff=BACKOFF).failed(frozenset({"a"}), now_s=10)
    assert times.next_due_s() == 11
    times = times.failed(frozenset({"a"}), now_s=11)
    assert times.next_due_s() == 13


def test_a_pass_before_the_time_is_due_does_not_count_as_another_failure() -> None:
    times = RetryTimes[str](backoff=BACKOFF).failed(frozenset({"a"}), now_s=10)

    assert times.failed(frozenset({"a"}), now_s=10.5).next_due_s() == 11


def test_a_key_that_recovered_starts_anew() -> None:
    times = RetryTimes[str](backoff=BACKOFF)
    for now_s in (0.0, 1.0, 3.0):
        times = times.failed(frozenset({"a"}), now_s=now_s)
    times = times.failed(frozenset(), now_s=8)
    assert times.next_due_s() is None
    assert times.failed(frozenset({"a"}), now_s=9).next_due_s() == 10


def test_each_key_has_its_own_time() -> None:
    times = RetryTimes[str](backoff=BACKOFF).failed(frozenset({"a"}), now_s=0).failed(frozenset({"a"}), now_s=1)

    assert times.failed(frozenset({"a", "b"}), now_s=1.5).next_due_s() == 2.5
