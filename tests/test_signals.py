import os
import signal
import subprocess
import sys
from threading import Thread

from slm_helpers._signals import exit_on_sigterm

import pytest


def test_sigterm_leaves_no_part_of_a_file_behind(tmp_path):
    code = f"""
import os, signal
from slm_helpers._signals import exit_on_sigterm
from slm_helpers.data.files import atomic_write
with exit_on_sigterm(), atomic_write({str(tmp_path / "out.csv")!r}) as file:
    file.write("half of it")
    os.kill(os.getpid(), signal.SIGTERM)
    print("still here")
"""
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (process.returncode, process.stdout) == (143, "") and list(tmp_path.iterdir()) == []


def test_the_handler_of_before_comes_back():
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(SystemExit) as stopped, exit_on_sigterm():
        os.kill(os.getpid(), signal.SIGTERM)
    assert stopped.value.code == 143 and signal.getsignal(signal.SIGTERM) == before


def test_other_threads_may_use_it_too():
    done = []

    def work():
        with exit_on_sigterm():
            done.append(True)

    thread = Thread(target=work)
    thread.start()
    thread.join()
    assert done == [True]
