"""What a contributor needs and no user."""
