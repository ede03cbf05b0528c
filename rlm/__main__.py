"""`python -m rlm`."""

import sys

try:
    from rlm.cli.main import main
except KeyboardInterrupt:  # it takes seconds to import
    sys.exit("rlm: interrupted")

main()
