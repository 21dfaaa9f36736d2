"""Retrieval: one descriptor an image, and the images that look most alike."""
