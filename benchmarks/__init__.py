"""Benchmarks: headrace beside other tools, on one machine, in one run, over one set of rows."""
