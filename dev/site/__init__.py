"""The documentation as a site: mkdocs.yml, and what it needs beside docs/."""
