"""MongoDB collections: what is read of them, in which slices, and where a read goes on; BSON becomes CSV in `bson`."""
