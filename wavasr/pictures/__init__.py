"""Recordings, networks and training runs as matplotlib figures (needs the extra `show`).

from wavasr.pictures.recording import recording; recording("talk.wav").savefig("talk.png")
"""
