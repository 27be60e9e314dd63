# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Run a part of a test in a process of its own, which never comes back into the test runner, whatever happens in it."""

from __future__ import annotations

import os
import traceback


def start(work):
    """Start a function in a child process; return its process id."""
    child = os.fork()
    if child:
        return child
    status = 70
    try:
        status = work() or 0
    except BaseException:
        os.write(2, traceback.format_exc().encode())
    finally:
        os._exit(status)


def end(child):
    """Wait for a child; return what its function returned, 70 if it raised, the negative signal if it was killed."""
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def run(work):
    """Run a function in a child process and wait for its end."""
    return end(start(work))
