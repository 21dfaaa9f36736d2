"""Localization in RGB-D maps (Taira et al., "InLoc", CVPR 2018): pure functions.

rgbd          3D at keypoints of images with a point for each pixel
homographies  matches that agree with a few planes
candidates    poses by Direct PE, Sparse PE (an image, or a place) and Dense PE
direct        nearest neighbours among all features of the map
rendering     the map's points as a picture from any pose
dense_sift    RootSIFT on a grid, blind to masked pixels
verification  Dense PV: which candidate pose shows what the query shows
"""
