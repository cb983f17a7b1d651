"""`rehearse`: runs the pending migrations for real, observes them, and rolls them back."""
