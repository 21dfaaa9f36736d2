"""Matching: which keypoints of two images show the same point."""
