"""An answer to Ctrl-C at once, whatever the program is busy with.

Python runs its own handlers of signals only between two of its instructions. While Ray starts, a
library is imported or a matrix is multiplied, that may take seconds.
"""

from __future__ import annotations

import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from ofbnas.cli.output import say

ANSWER = "stopping, which may take some seconds"


@contextmanager
def answered() -> Iterator[None]:
    """Say that the program stops as soon as it is interrupted; what stops it is not changed."""
    if threading.current_thread() is not threading.main_thread():  # which alone gets signals
        yield
        return
    receiving, sending = socket.socketpair()
    sending.setblocking(False)
    # The interpreter writes the number of a signal here when it arrives.
    before = signal.set_wakeup_fd(sending.fileno(), warn_on_full_buffer=False)
    thread = threading.Thread(target=_answer, args=(receiving,), daemon=True)
    thread.start()
    try:
        yield
    finally:
        signal.set_wakeup_fd(before)
        sending.close()
        thread.join()
        receiving.close()


def _answer(receiving: socket.socket) -> None:
    """Answer the first interrupt; ends when the other end is closed."""
    is_answered = False
    while numbers := receiving.recv(16):
        if signal.SIGINT in numbers and not is_answered:
            is_answered = True
            say(f"\n{ANSWER}", err=True)
