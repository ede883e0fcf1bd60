"""`python -m ww` is `ww`."""

import sys

from ww.cli import main

sys.exit(main())
