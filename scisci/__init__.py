"""scisci measures how scientific models scale, in distribution and out of it."""

__version__ = "0.1.0"
