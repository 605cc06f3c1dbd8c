"""Trials that take too long are ended by the driver's clock; test_stalled.py has real processes."""

from __future__ import annotations

import pytest

from ofbnas.config.study import ResourcesConfig
from ofbnas.study.cluster.watch import STEP, UNKNOWN, Watch


class Driver:
    """A watch that is polled as time passes, and the trials that it ended."""

    def __init__(self, **limits) -> None:
        self.now, self.killed = 0.0, []
        self.watch = Watch(ResourcesConfig(**limits), clock=lambda: self.now)

    def start(self, trial: int = 0) -> None:
        self.watch.started(trial, lambda: self.killed.append(trial))

    def wait(self, seconds: float) -> None:
        end = self.now + seconds
        while self.now < end:
            self.now = min(self.now + STEP, end)
            self.watch.look()

    def epochs(self, *seconds: float, trial: int = 0, phase: str = "search") -> None:
        for each in seconds:
            self.wait(each)
            self.watch.epoch(trial, phase)


def test_a_trial_is_ended_after_so_many_times_the_usual_epoch():
    driver = Driver(stall_factor=20, stall_floor=600)
    driver.start()
    driver.epochs(40, 40, 700, 40)  # one slow epoch is not the usual one
    driver.wait(800)
    assert not driver.killed
    driver.wait(1)
    assert (
        driver.killed == [0]
        and driver.watch.ended[0] == "no epoch for 801 s, 20 times the usual 40 s"
    )
    driver.wait(10_000)
    assert driver.killed == [0], "once"
    driver.start()
    assert not driver.watch.ended, "another attempt is not to blame"


def test_a_fast_trial_gets_the_floor_and_the_slower_phase_counts_for_all():
    driver = Driver(stall_factor=20, stall_floor=600)
    driver.start()
    driver.epochs(1, 1, 1)
    driver.epochs(600)
    assert not driver.killed
    driver.epochs(300, 100, phase="finetune")
    driver.epochs(1, 1, 1)
    driver.wait(4000)
    assert not driver.killed, "20 times the 200 s of fine-tuning"
    driver.wait(1)
    assert driver.killed == [0]


def test_before_any_epoch_there_is_nothing_to_compare_with():
    driver = Driver()
    driver.start(0)
    driver.wait(UNKNOWN)
    assert not driver.killed
    driver.wait(STEP)
    assert driver.killed == [0] and "nor of any other trial" in driver.watch.ended[0]
    driver.start(1)
    driver.start(2)
    driver.epochs(10, trial=1)
    driver.wait(800)
    assert sorted(driver.killed) == [0, 1, 2], "one that has begun is compared with others"


def test_each_attempt_has_the_whole_time_limit():
    driver = Driver(trial_timeout=3600, stall_factor=None)
    for attempt in (1, 2):
        driver.start()
        driver.wait(3600)
        assert len(driver.killed) == attempt - 1
        driver.wait(1)
        assert len(driver.killed) == attempt
        assert driver.watch.ended[0] == "ran for more than the 3600 s of resources.trial_timeout"


def test_without_limits_nothing_is_ended():
    driver = Driver(stall_factor=None)
    driver.start()
    driver.epochs(1, 1)
    driver.wait(10 * UNKNOWN)
    assert not driver.killed


def test_a_driver_that_was_suspended_blames_no_trial():
    driver = Driver(trial_timeout=1000)
    driver.start()
    driver.epochs(1, 1)
    driver.now += 10_000
    driver.watch.look()
    assert not driver.killed


@pytest.mark.parametrize("left_by", ["end", "limit"])
def test_a_late_report_of_an_ended_trial_is_ignored(left_by):
    driver = Driver(trial_timeout=10)
    driver.start()
    driver.wait(11 if left_by == "limit" else 1)
    driver.watch.over(0)
    driver.watch.epoch(0, "search")
    driver.wait(10_000)
    assert len(driver.killed) == (left_by == "limit")
