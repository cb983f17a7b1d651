"""What a person at a terminal sees: widths, colours, and a line that shows the work that goes on.

Imported only where a stream is a terminal, or is to get colours.
"""
