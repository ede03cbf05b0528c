"""`python -m rlm`."""

import os
import sys

try:
    if "RLM_PARENT" in os.environ:  # the panel started it
        from rlm.runtime.process import follow

        follow(int(os.environ.pop("RLM_PARENT")))
    from rlm.cli.main import main
except KeyboardInterrupt:  # it takes seconds to import
    sys.exit("rlm: interrupted")

main()
