"""Lists models on this machine, inspects those on the hub and downloads them. Loads no torch."""

from edge_tui.hub.listing import Listing, local_models

__all__ = [
    "Listing",
    "local_models",
]
