"""What is trained on: sets of photos that yield groups of crops with corresponding cells.

A set (`groups.TrainingSet`) is one file, and one line in `mix`.
"""
