"""Ctrl-C is answered even while no Python instruction can run in the main thread."""

from __future__ import annotations

import ctypes
import io
import os
import signal
import threading
from contextlib import redirect_stderr

import pytest
from commands import wait

from ofbnas.cli.interrupts import ANSWER, answered

LIBC = ctypes.CDLL(None)


@pytest.fixture(autouse=True)
def interruptible():
    """Interrupts raise KeyboardInterrupt, even where whoever started the tests ignores them."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_an_interrupt_is_answered_while_the_main_thread_is_busy():
    mutex = ctypes.create_string_buffer(64)  # zeros are an unlocked mutex, on Linux and macOS
    LIBC.pthread_mutex_lock(mutex)
    stderr = io.StringIO()

    def interrupt():
        os.kill(os.getpid(), signal.SIGINT)
        try:
            wait(lambda: ANSWER in stderr.getvalue())
        finally:
            LIBC.pthread_mutex_unlock(mutex)

    thread = threading.Thread(target=interrupt)

    def be_busy():
        thread.start()
        LIBC.pthread_mutex_lock(mutex)  # returns only when the answer has been given
        thread.join()

    with redirect_stderr(stderr), pytest.raises(KeyboardInterrupt), answered():
        be_busy()
    thread.join()
    assert stderr.getvalue().count(ANSWER) == 1
    assert signal.set_wakeup_fd(-1) == -1, "nothing is left behind"


def test_other_threads_run_commands_too():
    results = []

    def run():
        with answered():
            results.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert results == [signal.getsignal(signal.SIGINT)]
