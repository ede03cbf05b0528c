"""Child processes: what their logs report, and how they end."""

import time

import psutil
import pytest
from background_work import read_pids, run


def wait_for(child):
    end = time.monotonic() + 60
    while child.is_running:
        assert time.monotonic() < end, "it does not end"
        time.sleep(0.05)
    return child


def is_gone(pid):
    end = time.monotonic() + 10
    while time.monotonic() < end:
        if not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
            return True
        time.sleep(0.05)
    return False


def test_warnings_arrive_in_order_and_then_it_ends():
    child = wait_for(run("warn", 3))
    assert child.warnings == ["number 0", "number 1", "number 2"]
    assert child.problem == ""
    assert not child.is_running


@pytest.mark.parametrize(
    ("work", "problem"),
    [("fail_by_mistake", "expected a, found b"), ("fail_by_fault", "ZeroDivisionError: oh")],
)
def test_a_mistake_and_a_fault_are_reported(work, problem):
    child = run(work)
    assert wait_for(child).problem == problem


def test_warnings_arrive_and_a_killed_process_is_noticed():
    child = run("warn_and_die")
    while not child.warnings:
        time.sleep(0.05)
    assert child.warnings == ["look out"]
    assert "was killed (exit code 9)" in wait_for(child).problem


def test_stop_ends_it_and_what_it_started(tmp_path):
    child = run("start_another_and_wait", tmp_path / "pids")
    own, other = read_pids(tmp_path / "pids")
    assert child.problem == ""
    child.stop()
    assert is_gone(own)
    assert is_gone(other)
    assert not child.is_running


def test_work_ends_with_who_started_it(tmp_path):
    holder = run("hold", tmp_path / "pids")
    pids = read_pids(tmp_path / "pids")
    psutil.Process(holder._process.pid).kill()
    assert all(map(is_gone, pids))
