"""MongoDB collections: BSON batches become CSV without a Python object for a document."""
