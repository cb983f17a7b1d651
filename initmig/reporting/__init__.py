"""Events and results as text, JSON, and terminal output."""
