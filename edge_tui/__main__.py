"""`python -m edge_tui`."""

import sys

from edge_tui.cli import main

sys.exit(main())
