"""The error of this room: something that must not, or cannot, be published as it is."""


class PublishingError(ValueError):
    """What stands in the way of publishing; the message names the file or option, and the fix."""
