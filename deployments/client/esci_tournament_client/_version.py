"""The version: that of the platform whose scorer this client was tested with."""

__version__ = "0.1.0"
