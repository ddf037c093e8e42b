"""The servers reuse freed memory (ADR 31), and exclude permanent objects from garbage collection."""

import platform
import subprocess
import sys

import pytest

from registry_control.serving.process_tuning import freeze_objects, keep_freed_memory

only_glibc = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc has mallopt")

# Allocates and frees the buffers of several transfers in a thread, as the servers do; counts page faults.
_USE = """
import resource, threading
{prepare}

def use():
    for _ in range(20):
        pieces = [bytes(1024 * 1024) for _ in range(6)]
        del pieces

def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

warm = threading.Thread(target=use)
warm.start()
warm.join()
before = faults()
again = threading.Thread(target=use)
again.start()
again.join()
print(faults() - before)
"""


def printed_by(program: str) -> int:
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    return int(done.stdout)


def page_faults(prepare: str) -> int:
    return printed_by(_USE.format(prepare=prepare))


@only_glibc
def test_buffers_reuse_freed_memory() -> None:
    module, name = keep_freed_memory.__module__, keep_freed_memory.__name__
    kept = page_faults(f"from {module} import {name}; {name}()")
    given_back = page_faults("")
    assert kept * 2 < given_back


def test_the_garbage_collector_skips_objects_that_existed_before() -> None:
    module, name = freeze_objects.__module__, freeze_objects.__name__
    look = "import gc, django; print(len(gc.get_objects()))"
    without = printed_by(f"from {module} import {name}; {look}")
    left = printed_by(f"from {module} import {name}; import django; {name}(); {look}")
    assert left * 10 < without
