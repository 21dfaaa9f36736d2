"""Several methods over the same photos, side by side: which one suits them?

A method is an extractor, a matcher, or any other settings of one pipeline file (`methods`). Each
runs in a folder of its own; what they made of the photos is laid side by side (`compare`).
"""
