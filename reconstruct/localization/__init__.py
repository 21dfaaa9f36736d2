"""Localization: poses of photos in a finished map.

pose.py          settings; pure functions from matches to a pose
refine_query.py  keypoints of a query aligned with the photos of the map
query.py         the one flow of a query, which the two below share
localize.py      the stage; poses.txt
localizer.py     one photo at a time, from Python
evaluate.py      pose errors of queries
"""
