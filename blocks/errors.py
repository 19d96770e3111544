"""Errors a person meets: what is wrong, in which stream and field, and the way out."""

from __future__ import annotations


class ConfigurationError(Exception):
    """Something the user has to mend; never retried."""


class PositionLost(ConfigurationError):
    """The source or the bucket no longer knows the position the stream has reached; a person has to choose."""


class SnapshotLost(Exception):
    """The snapshot a plan reads under is gone (its connection was cut). The run plans again from the watermark."""
