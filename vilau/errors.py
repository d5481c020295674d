"""Errors a user can mend: one sentence with the key or file, what it holds, and what to write."""


class VilauError(Exception):
    """Base class; the command line prints its message alone and exits with code 2."""


class ConfigError(VilauError):
    """A setting is wrong: the message names its key, its value and the fix."""


class DataError(VilauError):
    """Input data is missing or broken: the message names the path, the problem and the fix."""


class DiskError(DataError):
    """A disk is full, read-only or closed: the message names the path; what was finished there may be gone on with."""


class CheckpointError(VilauError):
    """A saved model does not fit: the message names the path, the mismatch and the fix."""
