"""The real servers the tests talk to: each is a context manager that starts one and surely stops it again."""
