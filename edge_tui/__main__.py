"""`python -m edge_tui`."""

import sys

from edge_tui.cli.main import main

sys.exit(main())
