"""What a result was computed with."""

from __future__ import annotations

import platform
import sys
from importlib import metadata

from gfsim import __version__

PACKAGES = ("numpy", "scipy", "torch", "scikit-learn", "matplotlib")


def versions() -> dict[str, str]:
    """Versions of gfsim, Python, the platform and the numerical packages, none of which is imported for it."""
    found = {
        "gfsim": __version__,
        "python": platform.python_version(),
        "platform": f"{sys.platform}-{platform.machine()}",
    }
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "absent"
    return found
