"""Memory shared by inheritance."""

from __future__ import annotations

import os
import subprocess
import sys

from proxy.net.memory import attach, create, grow

CHILD = "import sys; from proxy.net.memory import attach; attach(int(sys.argv[1]))[100] = 7"


def test_what_a_child_writes_is_there_after_it_has_ended() -> None:
    """A worker killed loses nothing; nothing is unlinked when an attached process exits."""
    descriptor = create(8192)
    view = attach(descriptor)
    assert view.nbytes == 8192
    assert not any(view)
    subprocess.run([sys.executable, "-c", CHILD, str(descriptor)], pass_fds=[descriptor], check=True)
    assert view[100] == 7
    os.close(descriptor)


def test_no_child_inherits_it_by_accident() -> None:
    """Only workers get it."""
    descriptor = create(4096)
    assert not os.get_inheritable(descriptor)
    os.close(descriptor)


def test_it_can_be_made_longer_while_others_have_it_mapped() -> None:
    """A reload needs places for more workers; those of before go on in theirs."""
    descriptor = create(4096)
    before = attach(descriptor)
    grow(descriptor, 8192)
    grow(descriptor, 4096)
    after = attach(descriptor)
    assert (before.nbytes, after.nbytes) == (4096, 8192)
    before[5] = 9
    assert after[5] == 9
    os.close(descriptor)
