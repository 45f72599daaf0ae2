"""The one error a user can cause. Everything else that is raised is our bug and keeps its traceback."""

from __future__ import annotations


class UserError(Exception):
    """Bad input. The message is one line: the thing, what was expected, what came, and what to do.

    The command line prints it and exits with code 2.
    """
