"""What grows with what: the curves that `make growth` measures, their fits, their pictures, and docs/growth.md."""
