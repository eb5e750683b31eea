"""The errors a caller may want to catch; each message says what is wrong, where, and what to do."""


class GeoretrievalError(Exception):
    """Base of all errors that georetrieval raises on purpose."""


class SettingsError(GeoretrievalError, ValueError):
    """A recipe or an option that cannot be used."""


class DataError(GeoretrievalError, ValueError):
    """Shards or pairs that do not fit together, or scores that are no numbers."""


class SplitError(DataError):
    """No pairs of the split that was asked for."""


class CheckpointError(GeoretrievalError):
    """A checkpoint that is missing, damaged, or of another model."""


class IndexFileError(GeoretrievalError):
    """An index that is missing, damaged, or of another model."""


class MapError(GeoretrievalError, ValueError):
    """A map that tiles cannot be cut from."""
