"""Street panoramas to bird's-eye views (BEVs)."""
