"""How much memory and time a model file may take, and the watchdog that holds it to that.

ONNX Runtime has no clock of its own. A load is cancelled by a timer; calls are looked at four times a
second by one thread, which lives while there are any and asks those past their deadline to end.
"""

import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

LOOK = 0.25  # seconds between two looks at the calls that run
GRACE = 2.0  # seconds that a call asked to end may take: one operator cannot be interrupted
IDLE_LOOKS = 20  # looks without a call after which the thread ends
BUILD = 1200.0  # seconds for an engine of TensorRT, built when a file is opened or a batch is new to it


@dataclass(frozen=True)
class Limits:
    """memory: bytes for weights and activations on the CPU; the rest in seconds."""

    memory: int
    load: float
    call: float


def default_limits(size: int, nodes: int, provider: str) -> Limits:
    """What a file of so many bytes and nodes may take: whoever wants more has to ship more.

    memory 768 MiB + 16 size; load 4 s (60 s off the CPU, where it may compile) + 20 ms a node + 0.2 s
    a MB; a call 30 s + 1 s a MB; for tensorrt both `BUILD` more.
    """
    megabytes, build = size / 1e6, BUILD if provider == "tensorrt" else 0.0
    load = (4.0 if provider == "cpu" else 60.0) + nodes / 50 + megabytes / 5
    return Limits((768 << 20) + 16 * size, load + build, 30.0 + megabytes + build)


@dataclass
class Watchdog:
    """The calls that run now, each by its RunOptions, and the thread that looks at them.

    may_kill: whether the process is ours to end when an operator does not let go (see `stopped_by_signals`).
    """

    may_kill: bool = False
    calls: dict[int, tuple[float, Any]] = field(default_factory=dict)
    thread: threading.Thread | None = None
    lock: threading.Lock = field(default_factory=threading.Lock)

    def begin(self, options: Any, seconds: float) -> None:
        """A call starts: `options` are its RunOptions, `seconds` its limit."""
        self.calls[id(options)] = (time.monotonic() + seconds, options)
        if self.thread is None:  # read after the line above: see `_look`
            self._start()

    def end(self, options: Any) -> None:
        """That call is over."""
        del self.calls[id(options)]

    def stop(self, now: float = float("inf")) -> None:
        """Ask every call whose deadline is before `now` to end."""
        for deadline, options in list(self.calls.values()):
            if deadline < now:
                options.terminate = True

    def _start(self) -> None:
        with self.lock:
            if self.thread is None:
                self.thread = threading.Thread(target=self._look, name="watchdog", daemon=True)
                self.thread.start()

    def _look(self) -> None:
        idle = 0
        while idle < IDLE_LOOKS:
            time.sleep(LOOK)
            idle = 0 if self.calls else idle + 1
            self.stop(time.monotonic())
        self.thread = (
            None  # first this, then the look at `calls`: `begin` does it the other way round
        )
        if self.calls:
            self._start()


WATCHDOG = Watchdog()
# After a fork the child has the parent's book but not its thread.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=lambda: WATCHDOG.__init__())  # type: ignore[misc]


@contextlib.contextmanager
def cancelled_after(options: Any, seconds: float) -> Iterator[None]:
    """Cancel the load that uses these SessionOptions once it has taken so long."""
    timer = threading.Timer(seconds, options.set_load_cancellation_flag, (True,))
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


@contextlib.contextmanager
def stopped_by_signals() -> Iterator[None]:
    """Let SIGINT and SIGTERM end a call at once: SIGTERM raises SystemExit(143) as SIGINT interrupts.

    Python runs handlers between two of its own instructions only, so without this a signal waits for
    the call to return. For command lines: a call that does not end when asked to takes the process
    with it. Outside the main thread, where no handler can be set, it does nothing.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    ear, mouth = os.pipe()
    os.set_blocking(mouth, False)
    former = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    # SIGINT too: a process started in the background of a script is born deaf to it
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, _exit)
    waker = signal.set_wakeup_fd(mouth, warn_on_full_buffer=False)
    listener = threading.Thread(target=_listen, args=(ear,), name="signals", daemon=True)
    listener.start()
    WATCHDOG.may_kill = True
    try:
        yield
    finally:
        WATCHDOG.may_kill = False
        signal.set_wakeup_fd(waker)
        for number, handler in former.items():
            signal.signal(number, handler)
        os.close(mouth)  # the listener reads the end of the pipe
        listener.join()
        os.close(ear)


def _listen(ear: int) -> None:
    while heard := os.read(ear, 1):
        if heard[0] in (signal.SIGINT, signal.SIGTERM):
            WATCHDOG.stop()
            asked = dict(WATCHDOG.calls)
            time.sleep(GRACE / 4 if asked else 0.0)
            if any(WATCHDOG.calls.get(key) is call for key, call in asked.items()):
                _end("stopped\n", 128 + heard[0])


def _end(words: str, code: int) -> None:
    """End a process whose main thread is stuck in an operator; no file is being written there."""
    sys.stderr.write(words)
    sys.stderr.flush()
    os._exit(code)


def _exit(number: int, frame: object) -> None:
    raise SystemExit(128 + number)
