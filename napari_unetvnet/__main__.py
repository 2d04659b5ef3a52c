"""``python -m napari_unetvnet``."""

from __future__ import annotations

import os
import sys


def main() -> int:
    """Run the command line.

    Returns
    -------
    int
        Exit status: 0 done, 2 wrong use or bad input, 1 a fault, 130 stopped.
    """
    # Must be set before torch is imported; spinning threads make a run three times slower on a busy machine.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    try:
        from napari_unetvnet.cli import main as cli

        return cli(sys.argv[1:])
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
