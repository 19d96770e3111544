"""BSON documents → CSV records: declared columns by path, everything else in `_extra`. Of collections, and of what Debezium
tells of them in Extended JSON.
"""
