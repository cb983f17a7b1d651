"""`doctor`: what production checks too late, tried or looked up beforehand; nothing remains."""
