"""Output for people at a terminal: widths, colours, and a line that shows the running work.

Imported only if a stream is a terminal, or if colours are turned on.
"""
