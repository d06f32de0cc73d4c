"""The exceptions that gfsim raises for a user's mistake, and the words they use.

Every message names the value that was refused, the rule it broke and a remedy.  All of them derive
from :class:`GfsimError`, so the command line can turn any of them into one line on standard error.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class GfsimError(Exception):
    """Base class of every error that gfsim raises on purpose."""


class InvalidInput(GfsimError, ValueError):
    """An argument has a wrong value, shape or type."""


class UnknownName(GfsimError, KeyError):
    """A name (of a method, figure, activation, ...) that gfsim does not know."""

    def __str__(self) -> str:  # KeyError would print the repr of the message
        return str(self.args[0])


class NotHomogeneous(GfsimError, TypeError):
    """The request needs a positively homogeneous model and this model is not one."""


class SaddleNotFound(GfsimError, RuntimeError):
    """No sparse saddle with the requested active neurons was found from any start."""


class OutputError(GfsimError, OSError):
    """An output directory cannot be written, or holds something else."""


class CertificateRefused(GfsimError, ValueError):
    """A certificate is malformed, was changed, or does not prove what it claims."""


class NotCertified(GfsimError, RuntimeError):
    """No certificate was found for a point; this does not say that the claim is false."""


class MissingExtra(GfsimError, ImportError):
    """An optional package is not installed; the message says how to get it."""


def unreadable(path: object, exc: OSError, remedy: str) -> InvalidInput:
    """An :class:`InvalidInput` for a file that cannot be opened, with the system's reason."""
    return InvalidInput(f"cannot read {path}: {(exc.strerror or str(exc)).lower()}; {remedy}")


def unknown_name(kind: str, name: object, known: Iterable[str]) -> UnknownName:
    """An :class:`UnknownName` that lists what exists and points at the nearest spelling."""
    options = sorted(known)
    spelled = {option.lower(): option for option in options}
    near = difflib.get_close_matches(str(name).lower(), spelled, n=1, cutoff=0.4)
    hint = f" Did you mean {spelled[near[0]]!r}?" if near else ""
    return UnknownName(f"unknown {kind} {name!r}.{hint} Known: {', '.join(options)}.")
