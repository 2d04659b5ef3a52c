"""``python -m napari_unetvnet``."""

from __future__ import annotations

import sys

from napari_unetvnet.cli.threads import wait_briefly


def main() -> int:
    """Run the command line.

    Returns
    -------
    int
        Exit status: 0 done, 2 wrong use or bad input, 1 a fault, 130 stopped.
    """
    wait_briefly()
    try:
        from napari_unetvnet.cli.main import main as cli

        return cli(sys.argv[1:])
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
