"""Files of an output folder: sharded HDF5 and text lists."""
