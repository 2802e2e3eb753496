"""The two errors adpur raises on purpose; neither needs torch."""


class ConfigError(ValueError):
    """A setting or an input that cannot work, said as expected, got, and what to write instead.

    The command line prints it as one line and exits with code 2.
    """


class AttackError(RuntimeError):
    """An attack produced something no attack may produce, such as a non-finite gradient."""
