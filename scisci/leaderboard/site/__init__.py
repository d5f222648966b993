"""The leaderboard as static pages: everything in one folder, nothing fetched from elsewhere."""

from scisci.leaderboard.site.build import build

__all__ = ["build"]
