"""The other tools, each in a virtual environment of its own; see `benchmarks.peers.environments`."""
