"""The audit log: what it says of each record, its hash chain, its files, and how to check and read them."""
