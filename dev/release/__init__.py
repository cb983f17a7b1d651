"""Builds, checks and publishes a release. CONTRIBUTING.md, "Release", has the steps."""
