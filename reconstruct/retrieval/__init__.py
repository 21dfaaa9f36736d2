"""Retrieval: one global descriptor per image, and the images that look most alike."""
