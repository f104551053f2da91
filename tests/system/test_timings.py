import time

import pytest

from featx.system.timings import Stopwatch, Timings


def test_laps_lose_no_time_and_count_none_twice():
    begun = time.perf_counter()
    stopwatch = Stopwatch()
    with stopwatch.phase("forward"):
        time.sleep(0.02)
    with stopwatch.phase("write"):
        time.sleep(0.02)
        first = stopwatch.lap(3)
        time.sleep(0.03)
    stopwatch.next_lap()
    with stopwatch.phase("forward"):
        time.sleep(0.01)
    second = stopwatch.lap(2)
    whole = first + second
    assert whole.n_images == 5
    assert whole.elapsed_s <= time.perf_counter() - begun
    assert whole.forward_s + whole.write_s <= whole.elapsed_s
    assert first.write_s >= 0.02
    assert second.write_s >= 0.03
    assert first.elapsed_s >= 0.04
    assert second.elapsed_s >= 0.04


def test_reading_a_lap_changes_nothing():
    stopwatch = Stopwatch()
    with stopwatch.phase("write"):
        first = stopwatch.lap(1)
        second = stopwatch.lap(1)
    assert second.elapsed_s >= first.elapsed_s
    assert second.write_s >= first.write_s


def test_restart_forgets():
    stopwatch = Stopwatch()
    with stopwatch.phase("decode"):
        time.sleep(0.02)
    stopwatch.restart()
    assert stopwatch.lap(0).decode_s == 0


def test_waiting_counts_only_the_waiting():
    def slow():
        for i in range(3):
            time.sleep(0.01)
            yield i

    stopwatch = Stopwatch()
    seen = list(stopwatch.waiting("decode", slow()))
    assert seen == [0, 1, 2]
    assert stopwatch.lap(0).decode_s >= 0.03


def test_seconds_of_two_side_by_side_add_up_to_those_on_the_wall():
    begun = time.perf_counter()
    watches = [Stopwatch(side_by_side=2) for _ in range(2)]
    for watch in watches:
        with watch.phase("forward"):
            time.sleep(0.02)
    both = sum((watch.lap(1) for watch in watches), Timings())
    assert both.elapsed_s <= time.perf_counter() - begun
    assert both.elapsed_s >= 0.04
    assert both.forward_s >= 0.02


def test_a_share_of_the_images_costs_a_share_of_the_time():
    half = Timings(10, forward_s=4.0, elapsed_s=6.0, peak_memory_bytes=9).share(0.5)
    assert (half.n_images, half.forward_s, half.elapsed_s, half.peak_memory_bytes) == (5, 2.0, 3.0, 9)


def test_members_of_a_later_version_are_ignored():
    assert Timings.from_dict({"n_images": 2, "elapsed_s": 1.0, "later_s": 5}) == Timings(2, elapsed_s=1.0)
    with pytest.raises(TypeError):
        Timings(later_s=5)
