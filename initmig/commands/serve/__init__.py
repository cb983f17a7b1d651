"""`serve`: migrates, then answers readiness probes and metrics requests."""
