"""`rehearse`: what is pending runs for real, is looked at, and is rolled back."""
