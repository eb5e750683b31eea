"""From a file to pixels: finding, decoding, metadata."""
