"""Arguments and environment variables to one frozen Config."""
