"""Changes the library's code in small ways, and counts how many of the changes its tests notice: `make mutation`."""
