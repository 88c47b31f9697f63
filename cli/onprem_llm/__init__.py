"""From bare metal to a private LLM service, without the internet, in two commands."""

__version__ = "0.1.0"
