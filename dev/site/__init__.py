"""Makes a site of the documentation: hooks and assets for mkdocs.yml."""
