"""`python -m core_tuning` is `core-tuning`."""

import sys

from .cli import main

sys.exit(main())
