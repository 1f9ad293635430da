"""Models: those on this machine, those on the hub, and how the ones become the others.

Importing it loads neither torch nor transformers, and what talks to the hub does so in a process of its own.
"""

from edge_tui.hub.listing import Listing, local_models, tier

__all__ = ["Listing", "local_models", "tier"]
