"""Certificates in interval arithmetic: made by ``certify``, checked by ``verify``, which shares no code with the rest.

Needs python-flint, the optional extra ``rigor``.  docs/certificates.md says what a certificate states and proves.
"""

from gfsim.errors import MissingExtra

try:
    import flint  # noqa: F401
except ImportError:
    raise MissingExtra(
        "certificates are made and checked in ball arithmetic, which needs python-flint, and it is not installed; "
        "get it with: pip install 'gfsim[rigor]'"
    ) from None
