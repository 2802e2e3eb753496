"""`python -m adpur`."""

import sys

from adpur.cli import main

sys.exit(main())
