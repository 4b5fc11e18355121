"""`python -m slm_helpers` is the `slm` command."""

import sys

from slm_helpers.cli import main

sys.exit(main())
