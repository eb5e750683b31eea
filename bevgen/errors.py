"""The errors a caller may want to catch; each message says what is wrong, where, and what to do."""


class BevgenError(Exception):
    """Base of all errors that bevgen raises on purpose."""


class PanoramaError(BevgenError):
    """One image cannot be used; the message is the reason. A conversion skips the image."""


class ShardError(BevgenError):
    """A shard file is missing, incomplete, damaged or not one of ours."""


class InputError(BevgenError, ValueError):
    """The request itself is wrong: a folder, a poses file or an option that cannot be used."""


class DeviceError(BevgenError):
    """The GPU failed: no fault of the image at hand, so a conversion ends and can be continued."""


class WriteError(BevgenError, OSError):
    """A file could not be written: no space, no permission, no such folder."""


class RefusedError(BevgenError):
    """The request is sound, but carrying it out would mix, overwrite or disturb existing work."""
