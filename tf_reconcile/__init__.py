"""The pure core shared by every daemon: differences, plans with what is held, back-off, and the tree of errors.

Nothing here touches a clock, a socket, a log or a library: values in, values out. Everything above imports this
package; it imports nothing of ours.
"""
