"""Localization: poses of photos in a finished map."""
