"""Why one output of a provider could not be fetched, and so what to do about it."""


class SourceGone(Exception):
    """The provider's URL is dead: ask the provider for a new one, or give up."""


class SourceExpired(SourceGone):
    """The provider's URL is dead, and its host says that it will stay so."""


class SourceRefused(Exception):
    """What is there will not be stored, however often it is tried: private address, too large, not media."""


class SourceTrouble(Exception):
    """It did not work this time; try again while the URL lives."""
