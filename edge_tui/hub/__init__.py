"""Lists models on this machine, inspects those on the hub and downloads them. Loads no torch."""
