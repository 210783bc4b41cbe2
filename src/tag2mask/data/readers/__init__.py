"""One file for each kind of data, each with its ``READER``; the files are the registry."""
