"""Signals: when they stop what is running, when they wait, and who ends with whom."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from core_tuning.cli import main
from core_tuning.stopping import Stopped, stoppable, undisturbed, worker_setup


def send(kind=signal.SIGTERM):
    os.kill(os.getpid(), kind)


@pytest.mark.parametrize(("kind", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_raises_at_once(kind, code):
    with pytest.raises(Stopped) as stopped, stoppable():
        send(kind)
        pytest.fail("not stopped")
    assert stopped.value.exit_code == code
    assert str(stopped.value) == signal.Signals(kind).name


@pytest.mark.parametrize("kind", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_waits_for_the_end_of_the_outermost_block(kind):
    done = []
    with pytest.raises(Stopped), stoppable():
        with undisturbed():
            with undisturbed():
                send(kind)
                done.append("inner")
            done.append("outer")
        pytest.fail("not stopped")
    assert done == ["inner", "outer"]


SIGNAL_IN_A_DEL = """
import os, signal
from core_tuning.stopping import Stopped, stoppable, undisturbed

class Loader:
    def __del__(self):
        os.kill(os.getpid(), signal.SIGTERM)

try:
    with stoppable():
        Loader()
        with undisturbed():
            pass
        print("not stopped")
except Stopped as stopped:
    print(stopped)
"""


def test_a_signal_in_a_del_is_raised_later_and_prints_nothing():
    done = subprocess.run(
        [sys.executable, "-c", SIGNAL_IN_A_DEL], capture_output=True, text=True, check=True
    )
    assert (done.stdout, done.stderr) == ("SIGTERM\n", "")


def test_what_else_a_del_raises_is_reported(capfd):
    class Broken:
        def __del__(self):
            raise ValueError("a fault")

    with stoppable():
        broken = Broken()
        del broken
    assert "a fault" in capfd.readouterr().err


def test_ctrl_c_twice_does_not_wait():
    with pytest.raises(Stopped), stoppable(), undisturbed():
        send(signal.SIGINT)
        send(signal.SIGINT)
        pytest.fail("not stopped")


def test_the_second_sigterm_of_a_group_does_not_disturb_the_saving():
    saved = []
    with pytest.raises(Stopped), stoppable():
        try:
            send()
        except Stopped:
            send()
            saved.append(True)
            raise
    assert saved == [True]


def test_an_error_in_a_block_is_not_hidden_by_a_signal_that_waits():
    with pytest.raises(ValueError, match="mine"), stoppable():
        try:
            with undisturbed():
                send()
                raise ValueError("mine")
        except Stopped:
            pytest.fail("the error is lost")


def test_handlers_are_given_back_and_nothing_is_left_waiting():
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    with pytest.raises(Stopped), stoppable():
        send()
    assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == before
    with undisturbed():
        pass
    with stoppable(), undisturbed():
        pass
    with pytest.raises(Stopped), stoppable():
        send()


def test_in_another_thread_nothing_changes():
    before = signal.getsignal(signal.SIGTERM)
    seen = []

    def work():
        with stoppable():
            seen.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [before]


@pytest.mark.parametrize(("kind", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_the_command_line_says_how_to_go_on(capsys, monkeypatch, kind, code):
    monkeypatch.setattr("core_tuning.classification.finetune.main", lambda _: send(kind))
    assert main(["finetune"]) == code
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert f"stopped by {signal.Signals(kind).name}" in error
    assert "--resume goes on" in error


# A parent that starts a child, and dies by SIGKILL or lives on.
PARENT = """
import os, signal, subprocess, sys, time
from core_tuning.stopping import die_with_parent
child = subprocess.Popen(["sleep", "60"], preexec_fn=die_with_parent(signal.SIGTERM))
print(child.pid, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


def alive(pid):
    try:
        with open(f"/proc/{pid}/stat") as file:  # noqa: PTH123
            return file.read().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def wait_until(condition):
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.mark.skipif(sys.platform != "linux", reason="of Linux alone")
def test_a_child_ends_with_its_killed_parent():
    parent = subprocess.run([sys.executable, "-c", PARENT], stdout=subprocess.PIPE, check=False)
    assert parent.returncode == -signal.SIGKILL
    wait_until(lambda: not alive(int(parent.stdout)))


@pytest.mark.parametrize("kind", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_that_was_lost_is_raised_again(kind):
    """Python ignores what is raised in `__del__`, and where it prepares a fork."""

    class Loader:
        def __del__(self):
            try:
                send(kind)
            except Stopped:
                lost.append(True)

    lost = []
    with pytest.raises(Stopped) as stopped, stoppable():
        Loader()
        assert lost
        with undisturbed():
            lost.append("step")
        pytest.fail("not stopped")
    assert lost == [True, "step"]
    assert stopped.value.exit_code == 128 + kind


@pytest.mark.skipif(sys.platform != "linux", reason="of Linux alone")
def test_a_worker_survives_the_signals_of_its_group_and_ends_with_its_parent(tmp_path):
    seen = tmp_path / "seen"
    parent = os.fork()
    if parent == 0:
        # A loader's process: its worker says when it is ready.
        reader, writer = os.pipe()
        set_up = worker_setup()
        worker = os.fork()
        if worker == 0:
            set_up(0)
            os.write(writer, b"ready")
            time.sleep(60)
            os._exit(0)
        os.read(reader, 5)
        (tmp_path / "writing").write_text(f"{worker}")
        (tmp_path / "writing").rename(seen)
        time.sleep(60)
        os._exit(0)
    wait_until(seen.exists)
    worker = int(seen.read_text())
    os.kill(worker, signal.SIGTERM)
    os.kill(worker, signal.SIGINT)
    time.sleep(0.2)
    assert alive(worker)
    os.kill(parent, signal.SIGKILL)
    os.waitpid(parent, 0)
    wait_until(lambda: not alive(worker))


@pytest.mark.skipif(sys.platform != "linux", reason="of Linux alone")
def test_a_worker_ends_when_its_parent_tells_it_to():
    reader, writer = os.pipe()
    set_up = worker_setup()
    worker = os.fork()
    if worker == 0:
        set_up(0)
        os.write(writer, b"ready")
        time.sleep(60)
        os._exit(1)
    os.read(reader, 5)
    os.kill(worker, signal.SIGTERM)
    assert os.waitstatus_to_exitcode(os.waitpid(worker, 0)[1]) == 0
