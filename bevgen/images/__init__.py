"""From a file to pixels: finding, decoding, colour, metadata, and the part of the sphere shown."""
