"""`python -m tse_ser`: the command `tse-ser`, for `accelerate launch -m tse_ser train ...`."""

import sys

from tse_ser.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
