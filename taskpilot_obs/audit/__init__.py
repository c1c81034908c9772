"""The audit log: the fields of each record, the hash chain, the files, verification and queries."""
